package supervisor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/cluster"
)

// The agent is root, and goes where a task's names lead: to mirror, to pack, to tidy up.
func TestATaskThatPutsLinksInPlaceOfItsFoldersGainsAndBreaksNothing(t *testing.T) {
	b := feeding(t, true)
	victim := filepath.Join(b.dir, "victim")
	precious := []string{"data/precious", "secret", "config/PREEMPT_AT"}
	for _, name := range precious {
		path := filepath.Join(victim, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("hush"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := "set -e; cd /opt/ml; cat input/data/fast/a >/dev/null\nfor name in input model checkpoints output code; do\n" +
		"mv $name was-$name; ln -s " + victim + " $name; done; sleep 2.5" // the mirror looks every two seconds
	b.run(script(text, lazily, func(a *ledger.Assignment) { a.Program.Outputs, a.Program.Checkpoints = true, true }))
	if status := b.ended("digits/main/worker-0.1"); status.Started == 0 || status.State != cluster.TaskFailed || len(status.Outputs) > 0 {
		t.Errorf("it ended as %+v", status)
	}
	for _, name := range precious {
		if text, err := os.ReadFile(filepath.Join(victim, name)); err != nil || string(text) != "hush" {
			t.Errorf("%s is %q, %v", name, text, err)
		}
	}
	err := filepath.WalkDir(filepath.Join(b.dir, "store", "clary"), func(path string, item os.DirEntry, err error) error {
		if err == nil && !item.IsDir() && !strings.Contains(path, "/logs/") { // nothing of its own is in there
			t.Errorf("%s was sent", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
