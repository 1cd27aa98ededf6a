package worker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/worker"
)

func TestOptionsComeFromTheTasksEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spec.json")
	if err := os.WriteFile(path, []byte(`{"epochs": 3, "batch": 8, "workers": 2, "servers": 2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"SAGEMAKER_BASE_DIR": "/b", "CLARY_JOB": "digits", "CLARY_ROLE": "server", "CLARY_INDEX": "1", "CLARY_SPEC": path,
		"CLARY_HOSTS_SERVER": "10.0.0.1:7,10.0.0.2:8", "CLARY_PORTS": "8", "CLARY_LISTEN": "10.0.0.2", "CLARY_METRICS": "/m",
	}
	o, err := worker.OptionsFromEnv(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	got := strings.TrimSpace(fmt.Sprintln(o.Job, o.Index, o.Epochs, o.Workers, o.Addresses, o.Listen, o.Train, o.Model, o.Metrics, o.Failure))
	if want := "digits 1 3 2 [10.0.0.1:7 10.0.0.2:8] 10.0.0.2:8 /b/input/data/train /b/model /m /b/output/failure"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, value := range map[string]string{"CLARY_INDEX": "x", "CLARY_SPEC": "/nowhere", "CLARY_HOSTS_SERVER": "10.0.0.1:7", "OPENBLAS_NUM_THREADS": "-1"} {
		_, err := worker.OptionsFromEnv(func(n string) string {
			if n == name {
				return value
			}
			return env[n]
		})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}
