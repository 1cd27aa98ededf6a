package coordinator

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
)

func configIn(dir string) Config {
	return Config{ID: "c1", Data: dir, Listen: "10.0.0.1:7420", Gossip: "10.0.0.1:7421", StoreListen: "10.0.0.1:7423"}
}

func enters(t *testing.T, c Config) membership {
	t.Helper()
	m, err := enter(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestACoordinatorThatComesBackIsWhoItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := configIn(t.TempDir())
		first := enters(t, c)
		shown := first.credentials.Get()
		again := enters(t, c)
		if !first.founded || again.founded || again.keyring.Get().Authority.Pin() != first.keyring.Get().Authority.Pin() || !again.credentials.Get().Cert.Equal(shown.Cert) || !again.notes.Founder {
			t.Errorf("first %+v, again %+v", first.notes, again.notes)
		}
		time.Sleep(pki.NodeValidity * 3 / 4)
		renewed := enters(t, c).credentials.Get()
		if !renewed.Cert.NotAfter.After(shown.Cert.NotAfter) || !renewed.Key.Equal(shown.Key) {
			t.Error("with a third of its certificate left it starts with the old one, or with another key")
		}
		c.Listen, c.Gossip = "10.0.0.7:7420", "10.0.0.7:7421"
		moved := enters(t, c).credentials.Get()
		if moved.Cert.VerifyHostname("10.0.0.7") != nil || !moved.Key.Equal(shown.Key) {
			t.Error("its certificate does not name where it is now")
		}
		saved, err := pki.LoadCredentials(c.path(tlsFolder))
		if err != nil || !saved.Cert.Equal(moved.Cert) {
			t.Errorf("what it shows is not what it saved: %v", err)
		}
	})
}

func TestAFolderThatIsAnothersOrDamagedIsNotTaken(t *testing.T) {
	c := configIn(t.TempDir())
	enters(t, c)
	other := c
	other.ID = "c2"
	if _, err := enter(t.Context(), other); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `belongs to coordinator "c1"`) {
		t.Errorf("another id: %v", err)
	}
	for _, name := range []string{notesFile, keyringFile} {
		text, err := os.ReadFile(c.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.path(name), text[:len(text)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := enter(t.Context(), c); err == nil {
			t.Errorf("half of %s was good enough", name)
		}
		if err := os.WriteFile(c.path(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	enters(t, c)
}

func TestAStartThatWasCutOffFoundsAnew(t *testing.T) {
	c := configIn(t.TempDir())
	first := enters(t, c)
	if err := os.Remove(c.path(notesFile)); err != nil { // they are written last
		t.Fatal(err)
	}
	if second := enters(t, c); second.keyring.Get().Authority.Pin() == first.keyring.Get().Authority.Pin() || !second.founded {
		t.Error("it took up secrets that nobody has vouched for")
	}
}

func TestAFolderWhoseLogIsGoneIsNotVotedWith(t *testing.T) {
	c := configIn(filepath.Join(t.TempDir(), "data[1]*")) // whatever its name means to a shell
	enters(t, c)
	if err := logIsThere(c); err != nil { // its first start
		t.Fatal(err)
	}
	segments := c.path("raft", "raft", "log")
	if err := os.MkdirAll(segments, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(segments, "1.wal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := logIsThere(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(c.path("raft")); err != nil {
		t.Fatal(err)
	}
	if err := logIsThere(c); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "clary cluster remove c1") {
		t.Errorf("with its log deleted: %v", err)
	}
}

func TestAFolderOfACoordinatorThatWasRemovedIsRefused(t *testing.T) {
	c := configIn(t.TempDir())
	enters(t, c)
	if err := os.WriteFile(c.path(removedFile), []byte("another machine is c1 now: delete this folder\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := enter(t.Context(), c)
	if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "another machine is c1 now") || strings.Count(err.Error(), "delete") != 1 {
		t.Errorf("it came back: %v", err)
	}
}

func TestAMemberWhoseKeysAreLostSaysWhatHelps(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone": os.Remove,
		"damaged": func(path string) error {
			return os.WriteFile(path, []byte("-----BEGIN"), 0o600)
		},
	} {
		for _, file := range []string{notesFile, keyringFile, "tls/cert.pem"} {
			c := configIn(t.TempDir())
			enters(t, c)
			if err := os.WriteFile(c.path(beganFile), nil, 0o600); err != nil { // it has a log
				t.Fatal(err)
			}
			before, _ := os.ReadFile(c.path(keyringFile))
			if err := spoil(c.path(file)); err != nil {
				t.Fatal(err)
			}
			_, err := enter(t.Context(), c)
			if after, _ := os.ReadFile(c.path(keyringFile)); file != keyringFile && !bytes.Equal(before, after) {
				t.Errorf("%s %s: the cluster's keys were replaced", file, name)
			}
			for _, part := range []string{filepath.Dir(c.path(file)), "clary cluster remove c1", "join it again", "from a backup"} {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%s %s: %v does not say %q", file, name, err, part)
				}
			}
		}
	}
	c := configIn(t.TempDir())
	enters(t, c)
	if err := os.Chmod(c.path(keyringFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := enter(t.Context(), c); err == nil || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), "remove") {
		t.Errorf("a keyring that others may read: %v", err)
	}
}

func TestEveryMistakeInAConfigurationIsNamedByItsFlag(t *testing.T) {
	c := Config{ID: "No Name", Listen: "0.0.0.0:7420", Gossip: "nowhere", StoreListen: "x", Join: "y"}
	problems := c.Validate().Error()
	for _, flag := range []string{"--id", "--data", "--gossip", "--join", "--object-store-listen", "--advertise"} {
		if !strings.Contains(problems, flag) {
			t.Errorf("%s is not named in %s", flag, problems)
		}
	}
	if problems := configIn("x").Validate(); len(problems) > 0 {
		t.Error(problems)
	}
	if names := hosts("clary.example"); !slices.Contains(names, "clary.example") || !slices.Contains(names, "127.0.0.1") {
		t.Errorf("hosts %v", names)
	}
}
