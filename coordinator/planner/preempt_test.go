package planner_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/planner"
	"github.com/clary-ml/clary/coordinator/reconciler"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/training"
)

// reign is a bench whose jobs live: a reconciler runs beside the planner. Another leader may take over.
type reign struct {
	*bench
	record planner.Recorder // nil for none
	end    func()
}

// inReign runs play with a planner and a reconciler running.
func inReign(t *testing.T, play func(t *testing.T, r *reign)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		r := &reign{bench: &bench{t: t, ledger: ledger}}
		r.begin()
		defer func() { r.end() }()
		play(t, r)
	})
}

// begin is a leader's: it knows nothing that is not in the state.
func (r *reign) begin() {
	log := slog.New(slog.DiscardHandler)
	r.planner = planner.New(r.ledger, log)
	if r.record != nil {
		r.planner.Record(r.record)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	kinds := map[cluster.Kind]workload.Kind{cluster.KindTraining: training.Kind{}}
	ended := make(chan error, 2)
	go func() { ended <- r.planner.Run(ctx) }()
	go func() { ended <- reconciler.New(r.ledger, kinds, nil, log).Run(ctx) }()
	r.end = func() {
		cancel()
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				r.t.Errorf("it ended with %v", err)
			}
		}
	}
	synctest.Wait()
}

// submit makes a job of tasks with a core each, which can go on from checkpoints.
func (r *reign) submit(name string, tasks int32, change func(*cluster.Job, *cluster.Gang)) {
	r.t.Helper()
	r.bench.submit(name, tasks, func(j *cluster.Job, g *cluster.Gang) {
		g.Roles[0].Program.Checkpoints = true
		j.Submitted = time.Now().UnixNano()
		if change != nil {
			change(j, g)
		}
		g.Submitted, g.Priority = j.Submitted, j.Priority
	})
	synctest.Wait()
}

func urgent(j *cluster.Job, _ *cluster.Gang) { j.Priority = 10 }

func elastic(least int32) func(*cluster.Job, *cluster.Gang) {
	return func(_ *cluster.Job, g *cluster.Gang) { g.Roles[0].Min = least }
}

// report says of all tasks of a job's attempt how they are.
func (r *reign) report(name string, status cluster.TaskStatus) {
	r.t.Helper()
	gang, tasks := r.gang(name)
	for _, task := range tasks {
		if task.Attempt != gang.Attempt || task.Status.State.Ended() {
			continue
		}
		r.propose(command.ReportTasks{Node: task.Allocation.Node, Reports: []command.TaskReport{{Task: task.ID, Status: status}}})
	}
	synctest.Wait()
}

func (r *reign) gang(name string) (cluster.Gang, []cluster.Task) {
	r.t.Helper()
	snapshot, err := r.ledger.Read(r.t.Context(), true)
	if err != nil {
		r.t.Fatal(err)
	}
	defer snapshot.Close()
	gang, _ := snapshot.Gang(name + "/main")
	var tasks []cluster.Task
	for task := range snapshot.TasksOf(name) {
		tasks = append(tasks, task)
	}
	return gang, tasks
}

func (r *reign) job(name string) cluster.Job {
	r.t.Helper()
	snapshot, err := r.ledger.Read(r.t.Context(), true)
	if err != nil {
		r.t.Fatal(err)
	}
	defer snapshot.Close()
	job, _ := snapshot.Job(name)
	return job
}

// runs is how many tasks of the job's attempt hold something.
func (r *reign) runs(name string) int {
	r.t.Helper()
	synctest.Wait()
	gang, tasks := r.gang(name)
	count := 0
	for _, task := range tasks {
		if task.Attempt == gang.Attempt && !task.Status.State.Ended() {
			count++
		}
	}
	return count
}

func (r *reign) expect(name string, tasks int) {
	r.t.Helper()
	if got := r.runs(name); got != tasks {
		r.t.Fatalf("%s has %d tasks; want %d (its job: %s; why: %s)", name, got, tasks, r.job(name).Reason, r.why(name))
	}
}

var stopped = cluster.TaskStatus{State: cluster.TaskStopped}

// contested has two jobs run for two minutes on a node of two cores, of which one has a new checkpoint,
// and an urgent one come.
func (r *reign) contested() {
	r.t.Helper()
	r.node("a", 2)
	r.submit("dear", 1, nil)
	r.submit("cheap", 1, nil)
	r.expect("dear", 1)
	r.expect("cheap", 1)
	time.Sleep(2 * time.Minute)
	saved := cluster.TaskStatus{State: cluster.TaskRunning, Started: 1, Progress: cluster.Progress{Checkpoint: time.Now().UnixNano()}}
	r.report("cheap", saved)
	r.submit("urgent", 1, urgent)
}

func TestAnUrgentJobGetsTheRoomOfTheOneThatLosesLeast(t *testing.T) {
	inReign(t, func(t *testing.T, r *reign) {
		r.contested()
		gang, _ := r.gang("cheap")
		if !gang.Stop || !gang.Moves || gang.For != "urgent/main" || !strings.Contains(gang.StopReason, "preempted by") {
			t.Fatalf("the one with a new checkpoint is told %+v", gang)
		}
		if job := r.job("cheap"); !strings.HasPrefix(job.Reason, "preempted by") {
			t.Errorf("its job says %q", job.Reason)
		}
		if other, _ := r.gang("dear"); other.Stop {
			t.Error("the other one was stopped too")
		}
		r.expect("urgent", 0) // what it gets is not free yet
		if why := r.why("urgent"); !strings.Contains(why, "it waits for cheap/main to stop, which makes room for it on a") {
			t.Errorf("why: %s", why)
		}
		r.submit("thief", 1, nil)
		r.report("cheap", stopped)
		r.expect("urgent", 1)
		r.expect("thief", 0)
		job := r.job("cheap")
		if job.State != cluster.JobQueued || job.Attempt != 2 || job.Preempted != 1 || job.Failures != 0 {
			t.Errorf("the job that made room is %+v", job)
		}
		r.report("urgent", cluster.TaskStatus{State: cluster.TaskSucceeded})
		r.expect("cheap", 1) // before the one that came later
		r.expect("thief", 0)
		if again, _ := r.gang("cheap"); again.For != "" || again.Evicted != 1 {
			t.Errorf("its next attempt is %+v", again)
		}
	})
}

func TestANewLeaderKeepsTheRoomThatIsBeingMade(t *testing.T) {
	inReign(t, func(t *testing.T, r *reign) {
		r.contested()
		r.end()
		r.begin()
		r.expect("urgent", 0)
		if other, _ := r.gang("dear"); other.Stop {
			t.Fatal("the next leader has another one make room too")
		}
		r.submit("thief", 1, nil)
		r.report("cheap", stopped)
		r.expect("urgent", 1)
		r.expect("thief", 0)
	})
}

func TestNothingMakesRoomThatWasPlacedAMomentAgo(t *testing.T) {
	inReign(t, func(t *testing.T, r *reign) {
		r.node("a", 1)
		r.submit("young", 1, nil)
		r.expect("young", 1)
		r.submit("urgent", 1, urgent)
		time.Sleep(cluster.DefaultMinRuntime - time.Second)
		if gang, _ := r.gang("young"); gang.Stop {
			t.Fatal("it is told to stop after less than a minute")
		}
		time.Sleep(2 * time.Second) // no event tells that it has run for long enough
		synctest.Wait()
		if gang, _ := r.gang("young"); !gang.Stop {
			t.Error("it is left alone for more than a minute")
		}
	})
}

func TestWhoMustNotBePreemptedIsNot(t *testing.T) {
	inReign(t, func(t *testing.T, r *reign) {
		r.node("a", 1)
		r.submit("firm", 1, func(j *cluster.Job, g *cluster.Gang) { j.NonPreemptible, g.NonPreemptible = true, true })
		r.expect("firm", 1)
		time.Sleep(time.Hour)
		r.submit("urgent", 1, urgent)
		time.Sleep(time.Hour)
		if gang, _ := r.gang("firm"); gang.Stop {
			t.Error("it was stopped")
		}
		r.report("firm", cluster.TaskStatus{State: cluster.TaskSucceeded})
		r.expect("urgent", 1)
	})
}

func TestAPreemptorThatGivesUpLeavesTheRoom(t *testing.T) {
	inReign(t, func(t *testing.T, r *reign) {
		r.contested()
		job := r.job("urgent")
		job.Cancel = true
		r.propose(command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}})
		r.report("cheap", stopped)
		r.expect("cheap", 1)
	})
}

func TestAnElasticJobShrinksForAnotherAndGrowsBack(t *testing.T) {
	inReign(t, func(t *testing.T, r *reign) {
		r.node("a", 4)
		r.submit("wide", 6, elastic(2))
		r.expect("wide", 4) // as many as there is room for
		time.Sleep(5 * time.Minute)
		r.report("wide", cluster.TaskStatus{State: cluster.TaskRunning, Started: 1, Progress: cluster.Progress{Checkpoint: time.Now().UnixNano()}})
		r.submit("urgent", 1, urgent)
		gang, _ := r.gang("wide")
		if !gang.Stop || gang.For != "urgent/main" || !strings.Contains(gang.StopReason, "shrinks to 3") {
			t.Fatalf("it is told %+v", gang)
		}
		r.report("wide", stopped)
		r.expect("urgent", 1)
		r.expect("wide", 3)
		r.report("urgent", cluster.TaskStatus{State: cluster.TaskSucceeded})
		r.expect("wide", 3) // it has just begun
		r.report("wide", cluster.TaskStatus{State: cluster.TaskRunning, Started: time.Now().UnixNano(), Progress: cluster.Progress{Checkpoint: time.Now().UnixNano()}})
		time.Sleep(2 * time.Minute)
		r.report("wide", cluster.TaskStatus{State: cluster.TaskRunning, Progress: cluster.Progress{Checkpoint: time.Now().UnixNano()}})
		gang, _ = r.gang("wide")
		if !gang.Stop || gang.For != "wide/main" || !strings.Contains(gang.StopReason, "grows") {
			t.Fatalf("it is told %+v", gang)
		}
		r.report("wide", stopped)
		r.expect("wide", 4)
		if gang, _ = r.gang("wide"); gang.Evicted != 1 || len(gang.Resized) != 2 || r.job("wide").Failures != 0 {
			t.Errorf("it is %+v", gang)
		}
	})
}

func TestAGangThatCannotGoOnDoesNotGrow(t *testing.T) {
	inReign(t, func(t *testing.T, r *reign) {
		r.node("a", 1)
		r.submit("wide", 2, func(_ *cluster.Job, g *cluster.Gang) { g.Roles[0].Min, g.Roles[0].Program.Checkpoints = 1, false })
		r.expect("wide", 1)
		r.node("b", 1)
		time.Sleep(time.Hour)
		if gang, _ := r.gang("wide"); gang.Stop {
			t.Errorf("it lost all its work: %s", gang.StopReason)
		}
	})
}
