package command_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
)

// elastic submits a job of 2 to 3 workers with a core each.
func (w *world) elastic(name string) {
	w.Helper()
	r := submission(name)
	role := &r.Changes[1].Gang.Roles[0]
	role.Count, role.Min, role.Ask = 3, 2, cluster.Ask{MilliCPU: 1000}
	w.must(r)
}

// grant places so many of them.
func (w *world) grant(name string, tasks int32) cluster.Placement {
	gang := w.gang(name)
	p := cluster.Placement{Gang: gang.ID(), Attempt: gang.Attempt, Revision: gang.Revision, Counts: []int32{tasks}}
	for range tasks {
		p.Allocations = append(p.Allocations, cluster.Allocation{Node: "a", Resources: cluster.Resources{MilliCPU: 1000}})
	}
	return p
}

// contested is a world in which low runs, elastic with two workers, and high waits.
func contested(t *testing.T) *world {
	w := newWorld(t)
	w.elastic("low")
	if refused := w.must(command.CommitPlan{Placements: []cluster.Placement{w.grant("low", 2)}}).Refused; len(refused) > 0 {
		t.Fatal(refused)
	}
	w.submit("high")
	w.now += int64(cluster.DefaultMinRuntime)
	return w
}

func (w *world) eviction(victim, preemptor string) cluster.Eviction {
	gang := w.gang(victim)
	return cluster.Eviction{Gang: gang.ID(), Attempt: gang.Attempt, Revision: gang.Revision, For: preemptor + "/main", Reason: "preempted by default/" + preemptor}
}

func (w *world) evict(e cluster.Eviction) string {
	w.Helper()
	refused := w.must(command.CommitPlan{Evictions: []cluster.Eviction{e}}).Refused
	if len(refused) == 0 {
		return ""
	}
	return refused[0].Reason
}

func TestAnEvictionIsCheckedOnTheStateAsItIs(t *testing.T) {
	change := func(name string, change func(*cluster.Job, *cluster.Gang)) func(*world, *cluster.Eviction) {
		return func(w *world, e *cluster.Eviction) {
			job, gang := w.job(name), w.gang(name)
			change(&job, &gang)
			w.must(record(command.Change{Expect: job.Revision, Job: &job}, command.Change{Expect: gang.Revision, Gang: &gang}))
			e.Revision = w.gang("low").Revision
		}
	}
	for name, c := range map[string]struct {
		spoil  func(*world, *cluster.Eviction)
		reason string
	}{
		"unknown gang":    {func(_ *world, e *cluster.Eviction) { e.Gang = "none/main" }, "does not exist"},
		"old attempt":     {func(_ *world, e *cluster.Eviction) { e.Attempt = 2 }, "planned for attempt 2"},
		"old revision":    {func(_ *world, e *cluster.Eviction) { e.Revision-- }, "planned at revision"},
		"stops already":   {change("low", func(_ *cluster.Job, g *cluster.Gang) { g.Stop = true }), "ends or moves already"},
		"hands over":      {change("low", func(_ *cluster.Job, g *cluster.Gang) { g.Handover = true }), "must not pause"},
		"not preemptible": {change("low", func(_ *cluster.Job, g *cluster.Gang) { g.NonPreemptible = true }), "not preemptible"},
		"cancelled":       {change("low", func(j *cluster.Job, _ *cluster.Gang) { j.Cancel = true }), "cancelled"},
		"a moment ago":    {func(w *world, _ *cluster.Eviction) { w.now -= int64(time.Second) }, "left alone for 1s more"},
		"a moment ago for its queue": {func(w *world, _ *cluster.Eviction) {
			queue, _ := w.read().Queue("default")
			expect := queue.Revision
			queue.Name, queue.Weight, queue.MinRuntime = "default", 1, 2*cluster.DefaultMinRuntime
			w.must(record(command.Change{Expect: expect, Queue: &queue}))
		}, "left alone for 1m0s more"},
		"has ended": {func(w *world, _ *cluster.Eviction) {
			w.report("low/main/worker-0.1", cluster.TaskStatus{State: cluster.TaskSucceeded})
			w.report("low/main/worker-1.1", cluster.TaskStatus{State: cluster.TaskSucceeded})
		}, "holds nothing"},
		"for nobody":        {func(_ *world, e *cluster.Eviction) { e.For = "none/main" }, `"none/main", which it is to make room for, does not exist`},
		"for itself":        {func(_ *world, e *cluster.Eviction) { e.For = e.Gang }, "make room for itself"},
		"for one held":      {change("high", func(_ *cluster.Job, g *cluster.Gang) { g.Held = true }), "is held or told to stop"},
		"for one placed":    {func(w *world, _ *cluster.Eviction) { w.place("high") }, "has got a place"},
		"too many":          {func(_ *world, e *cluster.Eviction) { e.Counts = []int32{4} }, "4 of role worker: from 2 to 3"},
		"too few":           {func(_ *world, e *cluster.Eviction) { e.Counts = []int32{1} }, "1 of role worker: from 2 to 3"},
		"as many as before": {func(_ *world, e *cluster.Eviction) { e.Counts = []int32{2} }, "has these numbers"},
		"counts of another": {func(_ *world, e *cluster.Eviction) { e.Counts = []int32{2, 1} }, "counts for 2 roles, it has 1"},
		"resized too often": {func(w *world, e *cluster.Eviction) {
			change("low", func(_ *cluster.Job, g *cluster.Gang) {
				g.Resized = slices.Repeat([]int64{w.now - 1}, cluster.MaxResizes)
			})(w, e)
			e.Counts = []int32{3}
		}, "resized 6 times within 1h"},
	} {
		t.Run(name, func(t *testing.T) {
			w := contested(t)
			e := w.eviction("low", "high")
			c.spoil(w, &e)
			before := w.dump()
			if reason := w.evict(e); !strings.Contains(reason, c.reason) {
				t.Fatalf("refused for %q; want %q", reason, c.reason)
			}
			if before != w.dump() {
				t.Error("an eviction that was left out changed the state")
			}
		})
	}
}

func TestAnEvictedGangKeepsItsRoomUntilItsTasksHaveEnded(t *testing.T) {
	w := contested(t)
	e := w.eviction("low", "high")
	if reason := w.evict(e); reason != "" {
		t.Fatal(reason)
	}
	gang := w.gang("low")
	if !gang.Stop || !gang.Moves || gang.For != "high/main" || gang.StopReason != "preempted by default/high" || gang.Evicted != 1 {
		t.Errorf("it is told %+v", gang)
	}
	if used := w.used("a"); used.MilliCPU != 2000 {
		t.Errorf("%d of 2000 thousandths are used while its tasks end", used.MilliCPU)
	}
	e.Revision = gang.Revision
	if reason := w.evict(e); !strings.Contains(reason, "already") {
		t.Errorf("it was evicted twice: %q", reason)
	}
	stopped := cluster.TaskStatus{State: cluster.TaskStopped}
	w.report("low/main/worker-0.1", stopped)
	w.report("low/main/worker-1.1", stopped)
	w.report("low/main/worker-1.1", stopped)
	if used := w.used("a"); used.MilliCPU != 0 {
		t.Errorf("%d thousandths are used after its end", used.MilliCPU)
	}
}

func TestAnElasticGangHasTheTasksThatItIsGranted(t *testing.T) {
	w := newWorld(t)
	w.elastic("low")
	few := w.grant("low", 1)
	few.Counts = nil // and none is all of them
	short := w.grant("low", 2)
	short.Counts = []int32{3}
	for _, bad := range []cluster.Placement{w.grant("low", 1), w.grant("low", 4), few, short} {
		if refused := w.must(command.CommitPlan{Placements: []cluster.Placement{bad}}).Refused; len(refused) != 1 {
			t.Errorf("placed with %d allocations as %v", len(bad.Allocations), bad.Counts)
		}
	}
	if refused := w.must(command.CommitPlan{Placements: []cluster.Placement{w.grant("low", 2)}}).Refused; len(refused) > 0 {
		t.Fatal(refused)
	}
	if gang := w.gang("low"); gang.Size() != 2 || !slices.Equal(gang.Granted, []int32{2}) || len(ids(w)) != 2 {
		t.Errorf("placed as %d tasks, %v granted, with %v", gang.Size(), gang.Granted, ids(w))
	}
	w.now += int64(cluster.DefaultMinRuntime)
	grow := w.eviction("low", "low")
	grow.Counts, grow.Reason = []int32{3}, "grows to 3 workers"
	if reason := w.evict(grow); reason != "" {
		t.Fatal(reason)
	}
	if gang := w.gang("low"); gang.Evicted != 0 || len(gang.Resized) != 1 {
		t.Errorf("growing counts as %d evictions and %d resizes", gang.Evicted, len(gang.Resized))
	}
	for _, id := range ids(w) {
		w.report(id, cluster.TaskStatus{State: cluster.TaskStopped})
	}
	next := w.nextAttempt("low")
	next.Changes[1].Gang.Moves, next.Changes[1].Gang.For = false, ""
	if err := w.run(next).Err; err == nil || !strings.Contains(err.Error(), "granted") {
		t.Errorf("the next attempt began as large as the one before: %v", err)
	}
	next.Changes[1].Gang.Granted = nil
	w.must(next)
	if refused := w.must(command.CommitPlan{Placements: []cluster.Placement{w.grant("low", 3)}}).Refused; len(refused) > 0 || len(ids(w)) != 5 {
		t.Errorf("%v, tasks %v", refused, ids(w))
	}
}
