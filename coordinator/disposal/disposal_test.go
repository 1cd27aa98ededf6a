package disposal_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/coordinator/registry/registrytest"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/internal/fault"
)

// attic is a disposal on a ledger that can be cut off.
type attic struct {
	*testing.T
	*solo.Ledger
	store *registrytest.Store
	*disposal.Disposal
	left int // how many proposals are let through before all fail; negative: all
}

var errCut = fault.New(fault.Unready, "this coordinator does not lead any more")

func newAttic(t *testing.T) *attic {
	ledger, err := solo.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	a := &attic{T: t, Ledger: ledger, store: registrytest.New(), left: -1}
	ledger.Before = func([]command.Command) error {
		if a.left == 0 {
			return errCut
		}
		a.left--
		return nil
	}
	t.Cleanup(func() { _ = ledger.Close() })
	a.Disposal = disposal.New(ledger, func() (disposal.Store, error) { return a.store, nil })
	return a
}

func (a *attic) must(changes ...command.Change) {
	a.Helper()
	if _, err := a.Propose(context.Background(), command.Record{Changes: changes}); err != nil {
		a.Fatal(err)
	}
}

func (a *attic) job(name string) (cluster.Job, bool) {
	snapshot, err := a.Read(context.Background(), true)
	if err != nil {
		a.Fatal(err)
	}
	defer snapshot.Close()
	return snapshot.Job(name)
}

func (a *attic) end(name string) {
	a.Helper()
	for _, state := range []cluster.JobState{cluster.JobRunning, cluster.JobFailed} {
		job, _ := a.job(name)
		if job.State = state; state == cluster.JobRunning {
			job.Started = 10
		} else {
			job.Ended = 20
		}
		a.must(command.Change{Job: &job, Expect: job.Revision})
	}
}

const trials = 1100 // more than two records delete

// furnish puts a sweep there with trials, one of which has its job still, and a job beside it; all have left objects.
func (a *attic) furnish() {
	a.Helper()
	submitted := func(name string, kind cluster.Kind) cluster.Job {
		return cluster.Job{Name: name, Kind: kind, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1, Submitted: 5, Spec: []byte(`{"x":1}`)}
	}
	alone, sweeping := submitted("alone", cluster.KindTraining), submitted("s", cluster.KindTuning)
	gang := cluster.Gang{Job: "alone", Name: "main", Queue: cluster.DefaultQueue, Owner: "ada", Attempt: 1, Roles: []cluster.Role{{Name: "worker", Count: 1, Ask: cluster.Ask{MilliCPU: 100, Memory: 1 << 20}, Program: cluster.Program{Command: []string{"true"}}}}}
	a.must(command.Change{Job: &alone}, command.Change{Gang: &gang})
	a.must(command.Change{Job: &sweeping}, command.Change{Sweep: &cluster.Sweep{Job: "s", Parallel: 2}})
	snapshot, _ := a.Read(context.Background(), true)
	sweep, _ := snapshot.Sweep("s")
	snapshot.Close()
	sweep.Next, sweep.Order = trials, trials
	var changes []command.Change
	for n := range int64(trials) {
		trial := cluster.Trial{Sweep: "s", Number: n, Config: []float64{0.5}, State: cluster.TrialComplete, Order: uint64(n + 1), Job: fmt.Sprintf("s-t%d", n), Runs: 1}
		changes = append(changes, command.Change{Trial: &trial})
		if n%100 == 0 {
			a.store.Write(fmt.Sprintf("s3://clary/jobs/s-t%d/attempts/1/model", n), "weights", time.Unix(0, 0))
		}
	}
	sweep.Counts.Complete = trials
	a.must(append(changes, command.Change{Sweep: &sweep, Expect: sweep.Revision})...)
	child := submitted("s-t7", cluster.KindTraining)
	child.Parent = "s"
	parent, _ := a.job("s")
	a.must(command.Change{Check: &command.Key{Kind: "job", ID: "s"}, Expect: parent.Revision}, command.Change{Job: &child})
	for _, name := range []string{"s-t7", "s", "alone"} {
		a.end(name)
		a.store.Write("s3://clary/jobs/"+name+"/attempts/1/model", "weights", time.Unix(0, 0))
	}
}

// rows is what of the state is told of jobs, and all objects.
func (a *attic) rows() string {
	snapshot, err := a.Read(context.Background(), true)
	if err != nil {
		a.Fatal(err)
	}
	defer snapshot.Close()
	var rows []string
	for job := range snapshot.Jobs("") {
		rows = append(rows, "job "+job.Name)
	}
	for row := range snapshot.ArchivedJobs("") {
		row.Revision = 0
		rows = append(rows, fmt.Sprint("archived ", row))
	}
	for range snapshot.TrialsOf("s", 0) {
		rows = append(rows, "trial")
	}
	if _, is := snapshot.Sweep("s"); is {
		rows = append(rows, "sweep")
	}
	for gang := range snapshot.Gangs() {
		rows = append(rows, "gang "+gang.ID())
	}
	return strings.Join(append(rows, a.store.Below("s3://")...), "\n")
}

// untilDone does something anew as often as it is cut off: after none of its changes, then after one more each time.
func (a *attic) untilDone(do func() error) (tries int) {
	a.Helper()
	for {
		a.left = tries
		err := do()
		a.left = -1
		switch {
		case err == nil:
			return tries
		case !errors.Is(err, errCut):
			a.Fatal(err)
		case tries > 50:
			a.Fatal("it does not come to an end")
		}
		tries++
	}
}

func TestAnArchiveThatIsCutOffAnywhereEndsAsOneThatIsNot(t *testing.T) {
	want := newAttic(t)
	want.furnish()
	for _, name := range []string{"s", "alone"} {
		job, _ := want.job(name)
		if err := want.Archive(context.Background(), job, 77); err != nil {
			t.Fatal(err)
		}
	}
	if rows := want.rows(); strings.Contains(rows, "job ") || strings.Contains(rows, "trial") || strings.Count(rows, "archived ") != 2 || strings.Count(rows, "model") != 14 {
		t.Fatalf("what is left of archived jobs:\n%s", rows)
	}
	got := newAttic(t)
	got.furnish()
	cut := 0
	for _, name := range []string{"s", "alone"} {
		job, _ := got.job(name)
		cut += got.untilDone(func() error { return got.Archive(context.Background(), job, 77) })
	}
	if got.rows() != want.rows() || cut < 6 {
		t.Errorf("cut off %d times it ends with\n%s\nand else with\n%s", cut, got.rows(), want.rows())
	}
	for _, name := range []string{"s", "alone"} {
		view, err := disposal.Recorded(context.Background(), got.store, name)
		if err != nil || view.GetJob().GetName() != name || string(view.GetJob().GetSpec()) != `{"x":1}` || name == "alone" && len(view.GetGangs()) != 1 {
			t.Errorf("the record says %v, %v", view, err)
		}
	}
	// What a sweep's trials left goes with it, as its record names them; and so it does if that is cut off.
	snapshot, _ := got.Read(context.Background(), true)
	row, _ := snapshot.Archived("s")
	snapshot.Close()
	got.untilDone(func() error { _, err := got.Archived(context.Background(), row); return err })
	if left := got.store.Below("s3://"); !slices.Equal(left, []string{"s3://clary/jobs/alone/attempts/1/model", "s3://clary/jobs/alone/record.jsonl.gz"}) {
		t.Errorf("after the archived sweep was deleted there are %q", left)
	}
}

func TestAJobThatIsBeingArchivedCanBeDeleted(t *testing.T) {
	for cut := 1; ; cut++ {
		a := newAttic(t)
		a.furnish()
		job, _ := a.job("s")
		a.left = cut
		err := a.Archive(context.Background(), job, 77)
		if a.left = -1; err == nil {
			if cut < 5 {
				t.Errorf("it takes %d changes: nothing was tried", cut)
			}
			return
		}
		if _, err := a.Job(context.Background(), job); err != nil {
			t.Fatalf("after %d changes: %v", cut, err)
		}
		if rows := a.rows(); strings.Contains(rows, "s-t") || strings.Contains(rows, "archived") || strings.Contains(rows, "trial") {
			t.Fatalf("after %d changes and the deletion there are\n%s", cut, rows)
		}
	}
}

func TestOnlyTheJobThatWasReadIsArchived(t *testing.T) {
	a := newAttic(t)
	a.furnish()
	job, _ := a.job("alone")
	if _, err := a.Job(context.Background(), job); err != nil {
		t.Fatal(err)
	}
	if err := a.Archive(context.Background(), job, 77); !fault.Is(err, fault.Conflict) {
		t.Errorf("one that is gone: %v", err)
	}
	again := cluster.Job{Name: "alone", Kind: cluster.KindTraining, Owner: "eve", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1}
	a.must(command.Change{Job: &again})
	again, _ = a.job("alone")
	if err := a.Archive(context.Background(), again, 77); !fault.Is(err, fault.Conflict) {
		t.Errorf("one that goes on: %v", err)
	}
	row := again.Archive(77)
	if _, err := a.Propose(context.Background(), command.Record{Changes: []command.Change{{Archived: &row}}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("one that goes on, past the disposal: %v", err)
	}
}
