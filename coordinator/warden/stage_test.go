package warden_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/keyring"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/warden"
	"github.com/clary-ml/clary/internal/fault"
)

// A step whose outcome is not known, and another by the next leader: whichever is agreed on, its keyring is there.
func TestAKeyringThatIsHandedOverTakesNoOthersPlace(t *testing.T) {
	first, err := keyring.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w := warden.New(warden.Config{ID: "c1", Dir: dir, Keyring: keyring.NewCurrent(first)})
	staged := map[string]bool{}
	for range 2 {
		next, err := first.Step(cluster.RotateGossip, cluster.PhaseAdd, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		text, err := next.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Stage(text); err != nil {
			t.Fatal(err)
		}
		staged[next.ID] = true
	}
	files, err := filepath.Glob(filepath.Join(dir, "keyring.next-*.json"))
	if err != nil || len(files) != len(staged) {
		t.Fatalf("%d of %d are there: %v", len(files), len(staged), err)
	}
	for _, file := range files {
		kept, err := keyring.Load(file) // which refuses one that others may read
		if err != nil || !staged[kept.ID] {
			t.Errorf("%s: %v", file, err)
		}
	}
	text, err := first.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"without an ID": text, "no keyring": []byte("hello"),
		"an ID that leads elsewhere": bytes.Replace(text, []byte("{"), []byte(`{"id": "../../up",`), 1),
	} {
		if err := w.Stage(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s was taken: %v", name, err)
		}
	}
	if _, err := w.Fetch("feed"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a keyring that it has not: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "keyring.json")); err == nil {
		t.Error("what was only handed over is in force")
	}
}
