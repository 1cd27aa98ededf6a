package backup_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/internal/fault"
)

func TestABackupIsKnownByItsName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cluster := rapid.StringMatching(`[0-9a-f]{8}`).Draw(t, "cluster")
		life := rapid.SampledFrom([]string{"", "00ff00ff00-abcdefgh"}).Draw(t, "life")
		made := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "made"), 0).UTC()
		name := backup.Name(cluster, life, made)
		if at, of, ok := backup.Parse(name, cluster); !ok || !at.Equal(made) || of != life {
			t.Errorf("%s is read as %v, %q, %v", name, at, of, ok)
		}
		if later := backup.Name(cluster, "", made.Add(time.Second)); later <= name[:len(later)-len(".age")] {
			t.Errorf("%s does not come after %s", later, name)
		}
		if _, _, ok := backup.Parse(name, "00000000x"); ok {
			t.Errorf("%s is taken for another cluster's", name)
		}
		cut := name[:rapid.IntRange(0, len(name)-1).Draw(t, "cut")]
		if _, _, ok := backup.Parse(cut, cluster); ok {
			t.Errorf("%s is taken for a backup", cut)
		}
	})
	for _, name := range []string{"", "clary-1234abcd-.age", "clary-1234abcd-20260101T000000Zx.age", "clary-1234abcd-20260101T000000Z-.age", "clary-1234abcd-20261301T000000Z.age", "notes.age"} {
		if _, _, ok := backup.Parse(name, "1234abcd"); ok {
			t.Errorf("%q is taken for a backup", name)
		}
	}
}

func TestOnlyTheOldestOfItsOwnLifeExpire(t *testing.T) {
	at := func(hour int, life string) backup.File {
		return backup.File{URI: backup.Name("c", life, time.Unix(int64(hour)*3600, 0)), Made: time.Unix(int64(hour)*3600, 0), Life: life}
	}
	files := []backup.File{at(3, "b"), at(1, "b"), at(2, ""), at(4, "b"), at(1, ""), at(2, "b")}
	expired := func(life string, keep int) (hours []int64) {
		for _, f := range backup.Expired(files, life, keep) {
			if f.Life != life {
				t.Errorf("%+v is of another life", f)
			}
			hours = append(hours, f.Made.Unix()/3600)
		}
		return hours
	}
	if got := expired("b", 2); len(got) != 2 || got[0] != 2 || got[1] != 1 {
		t.Errorf("expired %v", got)
	}
	if got := expired("b", 9); len(got) != 0 {
		t.Errorf("expired %v", got)
	}
}

func TestTheStoresFileIsForItsOwnerAndItsMistakesAreNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.json")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := backup.LoadStore(path); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	const good = `{"endpoint": "s3.example:9000", "access_key": "a", "secret_key": "hush-hush", "region": "r"}`
	write(good, 0o600)
	if config, err := backup.LoadStore(path); err != nil || config.Endpoint != "s3.example:9000" || config.SecretKey != "hush-hush" || config.Region != "r" {
		t.Errorf("%+v, %v", config, err)
	}
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		kind fault.Kind
		says string
	}{
		"for all to read":  {good, 0o644, fault.Denied, "chmod 600 " + path},
		"no JSON":          {`secret_key: hush-hush`, 0o600, fault.Invalid, "is no JSON object"},
		"no keys":          {`{"endpoint": "s3.example:9000"}`, 0o600, fault.Invalid, "access key and secret key"},
		"no port":          {`{"endpoint": "s3.example", "access_key": "a", "secret_key": "hush-hush"}`, 0o600, fault.Invalid, "it must be host:port"},
		"no such CA":       {`{"endpoint": "s:1", "access_key": "a", "secret_key": "hush-hush", "ca_file": "/nowhere"}`, 0o600, fault.Invalid, "ca_file"},
		"plain to outside": {`{"endpoint": "s3.example:9000", "access_key": "a", "secret_key": "hush-hush", "plaintext": true}`, 0o600, fault.Invalid, "loopback"},
	} {
		write(c.text, c.mode)
		if _, err := backup.LoadStore(path); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hush-hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
