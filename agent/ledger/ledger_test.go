package ledger_test

import (
	"path/filepath"
	"reflect"
	"testing"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/cluster"
)

func entry(id string, state cluster.TaskState) ledger.Entry {
	return ledger.Entry{
		Assignment: ledger.Assignment{
			Task:    cluster.Task{ID: id, Allocation: cluster.Allocation{Resources: cluster.Resources{Devices: []string{"GPU-1"}}}},
			Program: cluster.Program{Command: []string{"true"}, Spec: []byte{0, 255}}, Hosts: map[string][]string{"worker": {"a:1"}},
		},
		Status: cluster.TaskStatus{State: state, ExitCode: 3, Progress: cluster.Progress{Metrics: map[string]float64{"loss": 0.5}}},
	}
}

func TestPromisesSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, err := ledger.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	a, b := entry("j/g/w-0.1", cluster.TaskRunning), entry("j/g/w-1.1", cluster.TaskFailed)
	if err := l.Put(b, a, entry("j/g/w-2.1", cluster.TaskRunning)); err != nil {
		t.Fatal(err)
	}
	if err := l.Delete("j/g/w-2.1", "unknown"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = ledger.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	all, err := l.All()
	if err != nil || !reflect.DeepEqual(all, []ledger.Entry{a, b}) {
		t.Errorf("read %+v, %v", all, err)
	}
	if _, err := ledger.Open(path); err == nil {
		t.Error("two agents have the same ledger open")
	}
}
