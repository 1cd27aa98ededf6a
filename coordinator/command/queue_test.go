package command_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// setQueue puts a queue over what there is of that name.
func (w *world) setQueue(queue cluster.Queue) command.Record {
	w.Helper()
	old, _ := w.read().Queue(queue.Name)
	queue.Weight = max(queue.Weight, 1)
	return record(command.Change{Expect: old.Revision, Queue: &queue})
}

// tries plans a gang onto a device of node a, with the given port, and returns why it was refused.
func (w *world) tries(name, device string, port int32) string {
	w.Helper()
	p := w.fit(name)
	p.Allocations[0].Resources.Devices = []string{device}
	p.Allocations[0].Resources.Ports = []int32{port, port + 1}
	refused := w.must(command.CommitPlan{Placements: []cluster.Placement{p}}).Refused
	if len(refused) == 0 {
		return ""
	}
	return refused[0].Reason
}

func gpus(n int64) cluster.Quota { return cluster.Quota{{Resource: "gpus", Amount: n * 1000}} }

func TestAPlacementIsChargedInTheEntryThatMakesItAndReleasedWithItsTask(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	if unended, waiting := w.read().QueueJobs("default"); unended != 1 || waiting != 1 {
		t.Errorf("%d jobs, %d wait", unended, waiting)
	}
	w.now = int64(100 * time.Second)
	w.place("one")
	want := cluster.Amount{MilliCPU: 1000, Memory: 1 << 30, MilliGPU: 1000, Models: []cluster.ModelAmount{{Model: "A100", Milli: 1000}}}
	usage := w.read().QueueUsage("default")
	if fmt.Sprint(usage.Used) != fmt.Sprint(want) || usage.Running != 1 || len(usage.Owners) != 1 || usage.Owners[0].Owner != "ada" {
		t.Errorf("the queue holds %+v", usage)
	}
	task := w.task("one/main/worker-0.1")
	if task.Claim.Queue != "default" || fmt.Sprint(task.Claim.Amount) != fmt.Sprint(want) {
		t.Errorf("the task is charged %+v", task.Claim)
	}
	w.report(task.ID, cluster.TaskStatus{State: cluster.TaskFailed})
	if usage := w.read().QueueUsage("default"); !usage.Used.IsZero() || usage.Running != 0 || len(usage.Owners) != 0 {
		t.Errorf("after the task ended the queue holds %+v", usage)
	}
	w.step("one", cluster.JobRunning, cluster.JobFailed)
	if unended, waiting := w.read().QueueJobs("default"); unended != 0 || waiting != 0 {
		t.Errorf("after its end %d jobs, %d wait", unended, waiting)
	}
}

func TestAPlanIsHeldAgainstTheQueuesAsTheyAreWhenItIsApplied(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"one", "two"} {
		w.submit(name)
	}
	for _, c := range []struct {
		queue cluster.Queue
		want  string
	}{
		{cluster.Queue{Borrow: gpus(0)}, "queue default has 0 GPUs taken of the 0 GPUs that it may have, its guarantee and its borrowing limit: 1 GPU asked, 1 GPU short"},
		{cluster.Queue{Borrow: cluster.Quota{{Resource: "gpus/A100", Amount: 500}}}, "0.5 A100 GPUs that it may have"},
		{cluster.Queue{User: cluster.UserLimit{Most: cluster.Quota{{Resource: "cores", Amount: 500}}}}, "ada holds 0 cores of queue default and may hold 0.5 cores"},
	} {
		c.queue.Name = "default"
		w.must(w.setQueue(c.queue))
		if got := w.tries("one", "a-g0", 100); !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.queue, got, c.want)
		}
		if usage := w.read().QueueUsage("default"); !usage.Used.IsZero() {
			t.Errorf("a placement that was refused is charged %+v", usage.Used)
		}
	}
	// What nobody may preempt counts apart, from its placement to its end.
	w.must(command.RaiseFormat{To: command.Format})
	w.must(w.setQueue(cluster.Queue{Name: "default", Unpreemptible: gpus(1)}))
	for _, name := range []string{"firm", "firm-too", "soft"} {
		w.submit(name)
	}
	for _, name := range []string{"firm", "firm-too"} {
		job, gang := w.job(name), w.gang(name)
		job.NonPreemptible, gang.NonPreemptible = true, true
		w.must(record(command.Change{Expect: job.Revision, Job: &job}, command.Change{Expect: gang.Revision, Gang: &gang}))
	}
	w.place("firm")
	if got := w.tries("firm-too", "a-g1", 102); !strings.Contains(got, "hold 1 GPU of queue default and may hold 1 GPU: 1 GPU asked, 1 GPU short") {
		t.Errorf("one more that nobody may preempt: %q", got)
	}
	if usage := w.read().QueueUsage("default"); usage.Firm.MilliGPU != 1000 {
		t.Errorf("of it nobody may preempt %+v", usage.Firm)
	}
	w.report(w.gang("firm").TaskID("worker", 0), cluster.TaskStatus{State: cluster.TaskFailed})
	if usage := w.read().QueueUsage("default"); !usage.Firm.IsZero() {
		t.Errorf("after it ended nobody may preempt %+v", usage.Firm)
	}
	// What one gang of a plan takes, the next cannot have.
	w.must(w.setQueue(cluster.Queue{Name: "default", Borrow: gpus(1)}))
	first, second := w.fit("one"), w.fit("two")
	second.Allocations[0].Resources.Devices, second.Allocations[0].Resources.Ports = []string{"a-g1"}, []int32{102, 103}
	refused := w.must(command.CommitPlan{Placements: []cluster.Placement{first, second}}).Refused
	if len(refused) != 1 || refused[0].ID != "two/main" || !strings.Contains(refused[0].Reason, "1 GPU short") {
		t.Errorf("refused: %+v", refused)
	}
	// A change is live, and takes nothing away.
	w.must(w.setQueue(cluster.Queue{Name: "default", MaxRunning: 1}))
	if got := w.tries("two", "a-g1", 102); !strings.Contains(got, "max_running 1") {
		t.Errorf("a second job: %q", got)
	}
	w.must(w.setQueue(cluster.Queue{Name: "default", Borrow: gpus(0)}))
	if usage := w.read().QueueUsage("default"); usage.Used.MilliGPU != 1000 {
		t.Errorf("after its limit was lowered the queue holds %+v", usage.Used)
	}
	w.must(w.setQueue(cluster.Queue{Name: "default"}))
	if got := w.tries("two", "a-g1", 102); got != "" {
		t.Errorf("without limits: %q", got)
	}
}

// Else the queue that it is charged to could be deleted before it ends.
func TestAGangStaysInTheQueueThatItIsChargedToWhileItIsPlaced(t *testing.T) {
	w := newWorld(t)
	w.must(w.setQueue(cluster.Queue{Name: "lab"}))
	w.must(w.setQueue(cluster.Queue{Name: "shop"}))
	w.submit("one")
	move := func(to string) command.Record {
		job, gang := w.job("one"), w.gang("one")
		job.Queue, gang.Queue = to, to
		return record(command.Change{Expect: job.Revision, Job: &job}, command.Change{Expect: gang.Revision, Gang: &gang})
	}
	w.must(move("lab")) // while it waits it may
	w.place("one")
	w.refuses(move("shop"), fault.Conflict, `queue: attempt 1 is placed and charged to "lab"`)
	lab, _ := w.read().Queue("lab")
	w.refuses(record(command.Change{Expect: lab.Revision, Delete: &command.Key{Kind: state.KindQueue, ID: "lab"}}), fault.Conflict, `"one" is in it`)
	w.report("one/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskFailed})
	if usage := w.read().QueueUsage("lab"); usage.Running != 0 {
		t.Errorf("after its end the queue holds %+v", usage)
	}
	again := w.nextAttempt("one")
	again.Changes[0].Job.Queue, again.Changes[1].Gang.Queue = "shop", "shop"
	w.must(again)
	if w.gang("one").Queue != "shop" {
		t.Error("the next attempt is not in the other queue")
	}
}

func TestWhatAQueueWithholdsNoOtherGets(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	w.must(w.setQueue(cluster.Queue{Name: "lab", Guarantee: gpus(3), Lend: gpus(0)}))
	if got := w.tries("one", "a-g0", 100); !strings.Contains(got, "withheld") {
		t.Errorf("all 3 healthy GPUs are withheld: %q", got)
	}
	w.must(w.setQueue(cluster.Queue{Name: "lab", Guarantee: gpus(3), Lend: gpus(1)}))
	if got := w.tries("one", "a-g0", 100); got != "" {
		t.Errorf("one GPU is lent: %q", got)
	}
}

func TestCapacityIsWhatReadyNodesHaveAndWhatIsUsedElsewhere(t *testing.T) {
	w := newWorld(t)
	w.submit("one")
	w.place("one")
	if got := w.read().Capacity(); got.MilliGPU != 3000 || got.MilliCPU != 4000 || got.Of("gpus/A100") != 2000 {
		t.Errorf("one node with 3 healthy GPUs: %+v", got)
	}
	w.must(command.SetNodeState{Node: "a", State: cluster.NodeDraining})
	if got := w.read().Capacity(); got.MilliGPU != 1000 || got.MilliCPU != 1000 {
		t.Errorf("it drains, with one GPU in use: %+v", got)
	}
	w.must(command.PutNode{Node: machine("b")})
	if got := w.read().Capacity(); got.MilliGPU != 4000 {
		t.Errorf("another came: %+v", got)
	}
	w.must(command.SetNodeState{Node: "a", State: cluster.NodeLost})
	w.must(command.RemoveNode{Node: "a"})
	if got := w.read().Capacity(); got.MilliGPU != 3000 || !w.read().QueueUsage("default").Used.IsZero() {
		t.Errorf("the first is gone: %+v, and the queue holds %+v", got, w.read().QueueUsage("default"))
	}
}

func TestAQueueTakesNoMoreWaitingJobsThanItMay(t *testing.T) {
	w := newWorld(t)
	w.must(record(
		command.Change{Queue: &cluster.Queue{Name: "top", Weight: 1, MaxWaiting: 1}},
		command.Change{Queue: &cluster.Queue{Name: "low", Weight: 1, Parent: "top"}},
	))
	into := func(name, queue string) command.Record {
		r := submission(name)
		r.Changes[0].Job.Queue, r.Changes[1].Gang.Queue = queue, queue
		return r
	}
	w.must(into("one", "low"))
	w.refuses(into("two", "low"), fault.Exhausted, `1 jobs wait in queue "top", the most that it takes (max_waiting 1)`)
	w.refuses(into("two", "nowhere"), fault.Invalid, `"nowhere" does not exist: there are default, low`)
	w.refuses(into("two", "top"), fault.Invalid, "takes no jobs: there is low")
	w.step("one", cluster.JobRunning)
	w.must(into("two", "low"))
}

func TestWhatWasHeldGoesIntoTheQueuesHistory(t *testing.T) {
	w := newWorld(t)
	w.must(w.setQueue(cluster.Queue{Name: "default", HalfLife: time.Hour}))
	w.submit("one")
	w.now = int64(1000 * time.Hour)
	w.place("one")
	w.now += int64(time.Hour)
	w.report("one/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskFailed})
	if usage := w.read().QueueUsage("default"); usage.Mean.MilliGPU != 500<<20 || usage.At != w.now {
		t.Errorf("one GPU for one half-life: %+v", usage)
	}
}

func TestAWrongTreeChangesNothing(t *testing.T) {
	w := newWorld(t)
	a, b := cluster.Queue{Name: "a", Weight: 1, Parent: "b"}, cluster.Queue{Name: "b", Weight: 1, Parent: "a"}
	w.refuses(record(command.Change{Queue: &a}, command.Change{Queue: &b}), fault.Invalid, "below itself")
	a.Parent, a.Guarantee, b.Guarantee = "", gpus(1), gpus(2)
	w.refuses(record(command.Change{Queue: &a}, command.Change{Queue: &b}), fault.Invalid, "those below it are guaranteed 2 GPUs together")
	b.Guarantee = gpus(1)
	w.must(record(command.Change{Queue: &b}, command.Change{Queue: &a})) // in any order: the whole record counts
	a.Guarantee = cluster.Quota{{Resource: "gpus", Amount: -5}}
	w.refuses(w.setQueue(a), fault.Invalid, "guarantee.gpus: -0.005 GPUs is out of range")
	w.refuses(w.setQueue(cluster.Queue{Name: "a", Guarantee: gpus(0)}), fault.Invalid, "those below it are guaranteed 1 GPU together")
}

// Replicas of a build that does not know of it charge the same placement without it, and must come to the same state.
func TestWhatNobodyMayPreemptCountsApartOnceAllReplicasKnowOfIt(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"before", "after"} {
		w.submit(name)
		job, gang := w.job(name), w.gang(name)
		job.NonPreemptible, gang.NonPreemptible = true, true
		w.must(record(command.Change{Expect: job.Revision, Job: &job}, command.Change{Expect: gang.Revision, Gang: &gang}))
	}
	limit := record(command.Change{Queue: &cluster.Queue{Name: "team", Weight: 1, Unpreemptible: gpus(1)}})
	if _, err := command.Fit(0, "", limit); !errors.Is(err, command.ErrHeldBack) {
		t.Errorf("a limit that an earlier build does not keep: %v", err)
	}
	w.place("before")
	if usage, claim := w.read().QueueUsage("default"), w.task("before/main/worker-0.1").Claim; claim.Firm || !usage.Firm.IsZero() {
		t.Errorf("before all know: the task is charged %+v, the queue %+v", claim, usage.Firm)
	}
	w.report("before/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskFailed})
	w.must(command.RaiseFormat{To: command.Format})
	w.place("after")
	if usage, claim := w.read().QueueUsage("default"), w.task("after/main/worker-0.1").Claim; !claim.Firm || usage.Firm.MilliGPU != 1000 {
		t.Errorf("once all know: the task is charged %+v, the queue %+v", claim, usage.Firm)
	}
}
