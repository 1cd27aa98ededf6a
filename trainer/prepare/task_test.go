package prepare_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/prepare"
)

// place is a task's base folder with a table, and its environment.
func place(t *testing.T, spec string) (base string, getenv func(string) string) {
	t.Helper()
	base = t.TempDir()
	for name, text := range map[string]string{"spec.json": spec, "in/rows.csv": "a,y\n1,n\n2,y\n3,n\n", "out/keep": ""} {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{"SAGEMAKER_BASE_DIR": base, "CLARY_SPEC": filepath.Join(base, "spec.json"), "CLARY_METRICS": filepath.Join(base, "metrics")}
	return base, func(name string) string { return env[name] }
}

func TestATaskDoesItsPlanInItsFolders(t *testing.T) {
	base, getenv := place(t, `{"plan": {"label": "y", "steps": [{"clean": {}}]}, "inputs": {"input": "in"}, "output": "out", "workers": 1}`)
	task, err := prepare.TaskFromEnv(getenv)
	if err != nil {
		t.Fatal(err)
	}
	report, err := task.Prepare(t.Context())
	if err != nil || report.String() != "3 rows: train 3" {
		t.Errorf("%s, %v", report, err)
	}
	if text, err := os.ReadFile(filepath.Join(base, "out/train/train.csv")); err != nil || string(text) != "a,y\n1,n\n2,y\n3,n\n" {
		t.Errorf("%q, %v", text, err)
	}
	task.Leave("message", "done")
	if text, err := os.ReadFile(filepath.Join(base, "output/message")); err != nil || string(text) != "done" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestATaskThatIsToldRubbishSaysSo(t *testing.T) {
	_, getenv := place(t, `{"plan": 3}`)
	if _, err := prepare.TaskFromEnv(getenv); !fault.Is(err, fault.Invalid) {
		t.Errorf("of rubbish: %v", err)
	}
	if _, err := prepare.TaskFromEnv(func(string) string { return "" }); !fault.Is(err, fault.Invalid) {
		t.Errorf("of nothing: %v", err)
	}
}

func TestHowFarATaskIsIsToldOnceASecond(t *testing.T) {
	base, getenv := place(t, `{}`)
	task, err := prepare.TaskFromEnv(getenv)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	task.Out = &said
	synctest.Test(t, func(t *testing.T) {
		tell, done, err := task.Teller()
		if err != nil {
			t.Fatal(err)
		}
		for i := range int64(30) { // three seconds, and a new reading in the middle of the third
			time.Sleep(100 * time.Millisecond)
			if i < 25 {
				tell(1, (i+1)*10)
			} else {
				tell(2, (i-24)*10)
			}
		}
		if err := done(); err != nil {
			t.Error(err)
		}
	})
	if want := "reading 1: 100 rows\nreading 1: 200 rows\nreading 2: 50 rows\n"; said.String() != want {
		t.Errorf("people are told %q", said.String())
	}
	lines, err := os.ReadFile(filepath.Join(base, "metrics"))
	if err != nil || strings.Count(string(lines), "\n") != 3 || !strings.Contains(string(lines), `{"epoch": 1, "step": 200, "metrics": {"rows_per_second": 100}}`) {
		t.Errorf("programs are told %q, %v", lines, err)
	}
}
