package command_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// world is a state with a node of 4 cores, 2 GPUs and ports 100 to 103.
type world struct {
	*testing.T
	store *state.Store
	now   int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	w := &world{T: t, store: store, now: 1000}
	w.must(command.PutNode{Node: machine("a")})
	return w
}

func machine(id string) cluster.Node {
	return cluster.Node{
		ID: id, Address: id, MilliCPU: 4000, Memory: 8 << 30, PortFirst: 100, PortLast: 103,
		Devices: []cluster.Device{
			{UUID: id + "-g0", Kind: cluster.DeviceGPU, Model: "A100", Healthy: true},
			{UUID: id + "-g1", Kind: cluster.DeviceGPU, Model: "A100", Healthy: true},
			{UUID: id + "-g2", Kind: cluster.DeviceGPU, Model: "A100", Healthy: false},
			{UUID: id + "-g3", Kind: cluster.DeviceGPU, Model: "T4", Healthy: true},
		},
		Labels: map[string]string{"zone": "x"},
	}
}

func (w *world) run(c command.Command) command.Result {
	w.Helper()
	raw, err := command.Encode(w.now, c) // as it goes through the log
	if err != nil {
		w.Fatal(err)
	}
	stamped, err := command.Decode(raw)
	if err != nil {
		w.Fatal(err)
	}
	before := w.dump()
	var result command.Result
	err = w.store.Batch(func(writer *state.Writer) error {
		result = command.Run(writer, stamped[0].Command, stamped[0].Now)
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	if after := w.dump(); result.Err != nil && before != after {
		w.Fatalf("a refused command changed\n%s\ninto\n%s", before, after)
	}
	return result
}

func (w *world) must(c command.Command) command.Result {
	w.Helper()
	result := w.run(c)
	if result.Err != nil {
		w.Fatalf("%T was refused: %v", c, result.Err)
	}
	return result
}

// refuses checks the kind of the refusal and that its text names what is wrong.
func (w *world) refuses(c command.Command, kind fault.Kind, text string) {
	w.Helper()
	err := w.run(c).Err
	if err == nil || fault.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		w.Errorf("got %v; want a refusal (%s) with %q", err, kind, text)
	}
}

func (w *world) read() *state.Snapshot {
	w.Helper()
	s, err := w.store.Snapshot()
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = s.Close() })
	return s
}

func (w *world) dump() string {
	var text bytes.Buffer
	s, err := w.store.Snapshot()
	if err != nil {
		w.Fatal(err)
	}
	defer s.Close()
	if err := s.Dump(&text); err != nil {
		w.Fatal(err)
	}
	return text.String()
}

func (w *world) job(name string) cluster.Job        { job, _ := w.read().Job(name); return job }
func (w *world) gang(name string) cluster.Gang      { gang, _ := w.read().Gang(name + "/main"); return gang }
func (w *world) task(id string) cluster.Task        { task, _ := w.read().Task(id); return task }
func (w *world) used(node string) cluster.Resources { return w.read().Used(node) }
func (w *world) putJob(job cluster.Job) command.Record {
	return record(command.Change{Expect: job.Revision, Job: &job})
}

func (w *world) step(name string, states ...cluster.JobState) {
	w.Helper()
	for _, next := range states {
		job := w.job(name)
		job.State = next
		w.must(w.putJob(job))
	}
}

func record(changes ...command.Change) command.Record { return command.Record{Changes: changes} }

// submit makes a job whose gang has one worker asking for a core, a GPU and two ports.
func (w *world) submit(name string) {
	w.Helper()
	r := submission(name)
	gang := r.Changes[1].Gang
	gang.Roles[0].Ask = cluster.Ask{MilliCPU: 1000, Memory: 1 << 30, GPUs: 1, GPUModel: "A100", Ports: 2}
	gang.Roles[0].Labels = map[string]string{"zone": "x"}
	gang.NotBefore = 500
	w.must(r)
}

// fit is a placement that is right for what submit made.
func (w *world) fit(name string) cluster.Placement {
	gang := w.gang(name)
	return cluster.Placement{
		Gang: gang.ID(), Attempt: gang.Attempt, Revision: gang.Revision,
		Allocations: []cluster.Allocation{{Node: "a", Resources: cluster.Resources{
			MilliCPU: 1000, Memory: 1 << 30, Devices: []string{"a-g0"}, Ports: []int32{101, 100},
		}}},
	}
}

func (w *world) place(name string) {
	w.Helper()
	if refused := w.must(command.CommitPlan{Placements: []cluster.Placement{w.fit(name)}}).Refused; len(refused) > 0 {
		w.Fatal(refused)
	}
}

func (w *world) report(id string, status cluster.TaskStatus) command.Result {
	w.Helper()
	return w.must(command.ReportTasks{Node: "a", Reports: []command.TaskReport{{Task: id, Status: status}}})
}

func (w *world) nextAttempt(name string) command.Record {
	job, gang := w.job(name), w.gang(name)
	gang.Attempt, gang.Stop = gang.Attempt+1, false
	return record(command.Change{Expect: job.Revision, Job: &job}, command.Change{Expect: gang.Revision, Gang: &gang})
}

func ids(w *world) (list []string) {
	for task := range w.read().Tasks() {
		list = append(list, task.ID)
	}
	slices.Sort(list)
	return list
}
