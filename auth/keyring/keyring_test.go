package keyring_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// create makes a new cluster's keyring in a file.
func create(t *testing.T, path string) *keyring.Keyring {
	t.Helper()
	made, err := keyring.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Save(path); err != nil {
		t.Fatal(err)
	}
	return made
}

func TestAKeyringSurvivesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	if _, err := keyring.Load(path); !fault.Is(err, fault.NotFound) {
		t.Errorf("no file: %v, want NotFound", err)
	}
	made := create(t, path)
	got, err := keyring.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Authority.Pin() != made.Authority.Pin() || !bytes.Equal(got.DataKey, made.DataKey) ||
		!bytes.Equal(got.GossipKeys[0], made.GossipKeys[0]) || got.ObjectSecret != made.ObjectSecret {
		t.Error("what was loaded is not what was made")
	}
	if bytes.Equal(got.DataKey, got.GossipKeys[0]) {
		t.Error("data key and gossip key are the same")
	}
	other := filepath.Join(t.TempDir(), "copy")
	if err := got.Save(other); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(other); info.Mode().Perm() != 0o600 {
		t.Errorf("saved with mode %v", info.Mode())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, got); strings.Contains(text, got.ObjectSecret) || !strings.Contains(text, "keyring(sha256:") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func TestAKeyringThatOthersMayReadIsRefusedWithTheRemedy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	create(t, path)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := keyring.Load(path); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestADamagedKeyringIsRefused(t *testing.T) {
	k, err := keyring.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	short := *k
	short.GossipKeys = [][]byte{k.GossipKeys[0][:16]}
	text := func(k keyring.Keyring) string {
		out, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	whole := text(*k)
	for name, c := range map[string]struct{ text, want string }{
		"empty":     {"", "keyring"},
		"no json":   {"hello", "keyring"},
		"newer":     {strings.Replace(whole, `"version": 1`, `"version": 4`, 1), "version is 4"},
		"short key": {text(short), "gossip_key has 16 bytes"},
		"cut key":   {strings.Replace(whole, "BEGIN PRIVATE KEY", "BEGIN", 1), "CA key"},
		"no secret": {strings.Replace(whole, k.ObjectSecret, "", 1), "object_secret"},
	} {
		if _, err := keyring.Unmarshal([]byte(c.text)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
	}
}

func TestTheLifeOfAClusterStaysWithItsKeys(t *testing.T) {
	k, err := keyring.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k.Life = "00000000ff-abc"
	next, err := k.Step(cluster.RotateGossip, cluster.PhaseAdd, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, one := range map[string]*keyring.Keyring{"restored": k, "restored and rotated": next} {
		text, err := one.Marshal()
		if err != nil || !strings.Contains(string(text), `"version": 3`) { // which older builds refuse
			t.Errorf("%s: %v", name, err)
		}
		got, err := keyring.Unmarshal(text)
		if err != nil || got.Life != k.Life || len(got.GossipKeys) != len(one.GossipKeys) || len(got.SealKeys) != len(one.SealKeys) {
			t.Errorf("%s: read back %v, %v", name, got, err)
		}
		sealed, err := k.Seal([]byte("v"), "c")
		if err != nil {
			t.Fatal(err)
		}
		if value, err := got.Open(sealed, "c"); err != nil || string(value) != "v" {
			t.Errorf("%s: opens %q, %v", name, value, err)
		}
	}
}
