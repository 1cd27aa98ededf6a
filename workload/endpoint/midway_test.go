package endpoint_test

import (
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload/endpoint"
)

// midway is a world in the middle of a canary.
func midway(t *testing.T, rest string) *world {
	t.Helper()
	w := up(t, one(1, ""))
	if err := w.update(one(2, `, "update": {"strategy": "canary", "step": 0.5, "bake": "1m"}`+rest), endpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	for w.e.Rollout.Phase != cluster.RolloutBaking {
		w.behave()
		w.settle()
	}
	return w
}

func TestANewVersionGetsNoMoreWhileOneOfItsReplicasOnlyDrains(t *testing.T) {
	w := midway(t, "")
	w.evict(w.nodes[0]) // where all are
	w.settle()
	w.behave()
	w.settle()
	f := w.e.Fleets[w.e.Fleet("main-2")]
	if len(f.Draining) != 2 || f.Next != 4 {
		t.Fatalf("%+v", f)
	}
	w.report(w.gangs["main-2-3"], cluster.TaskRunning, false)
	w.now += int64(time.Minute)
	w.settle()
	if r := w.e.Rollout; r == nil || r.Phase != cluster.RolloutBaking || r.Step != 0 {
		t.Fatalf("one of two answers and stays, and it went on: %+v", r)
	}
	w.report(w.gangs["main-2-3"], cluster.TaskRunning, true)
	w.settle()
	if r := w.e.Rollout; r == nil || r.Step != 1 {
		t.Errorf("both answer, and it did not go on: %+v", r)
	}
}

func TestReplicasOnlyBecomeMoreDuringAnUpdate(t *testing.T) {
	w := midway(t, "")
	if _, err := endpoint.SetReplicas(w.job, *w.e, "main", 1, w.who()); !fault.Is(err, fault.Conflict) || !contains(err.Error(), "main-1 has 2 replicas and an update is in progress") {
		t.Errorf("%v", err)
	}
	e, err := endpoint.SetReplicas(w.job, *w.e, "main", 3, w.who())
	if w.ask("replicas", e, err) != nil {
		t.Fatal(err)
	}
	for _, f := range w.e.Fleets {
		if f.Replicas != 3 {
			t.Errorf("%s has %d", f.ID(), f.Replicas)
		}
	}
	w.pass(w.steady)
	w.is(t, "main-2-0", "main-2-1", "main-2-2")
	if !contains(string(w.e.Spec), `"replicas":3`) || !contains(string(w.e.Previous), `"replicas":3`) {
		t.Errorf("%s, before %s", w.e.Spec, w.e.Previous)
	}
}

func TestComingSettingsAreInForceFromTheFirstStepOn(t *testing.T) {
	w := up(t, one(1, ""))
	rate := func() float64 {
		table, err := endpoint.Table(w.job, *w.e, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return table.Limits.Rate
	}
	if err := w.update(one(2, `, "limits": {"rate": 7}, "update": {"strategy": "canary", "step": 0.5}`), endpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	if rate() != 0 {
		t.Error("they are in force before anybody is served by the new version")
	}
	for w.e.Rollout.Phase != cluster.RolloutBaking {
		w.behave()
		w.settle()
	}
	if rate() != 7 {
		t.Error("they are not in force while it bakes")
	}
	e, err := endpoint.Rollback(w.job, *w.e, "", w.who())
	if w.ask("rollback", e, err) != nil || rate() != 0 {
		t.Errorf("they stay after a rollback: %v", err)
	}
}

func TestLinearStepsEndAtAllHoweverTheyAreRounded(t *testing.T) {
	w := up(t, one(1, ""))
	s, _ := endpoint.Parse([]byte(one(2, `, "update": {"strategy": "linear", "step": 0.1}`)))
	for _, n := range []int{3, 10, 49, 98} { // 49 times a 49th is less than 1 in binary
		s.Update.Step = quantity.Share(1 / float64(n))
		e, err := endpoint.Update(w.job, *w.e, s, nil, endpoint.Options{}, w.who())
		if err != nil {
			t.Fatal(err)
		}
		if steps := e.Rollout.Steps; len(steps) != n || steps[n-1] != 1 {
			t.Errorf("in %d: %v", n, steps)
		}
	}
}

func TestAHeldEndpointWaitsUntilItIsReleased(t *testing.T) {
	w := newWorld(t.Fatalf, one(1, ""), 1, 4)
	w.job.Held = true
	w.settle()
	w.place()
	if len(w.live()) > 0 || !w.gangs["main-1-0"].Held {
		t.Fatalf("%+v", w.gangs)
	}
	w.job.Held, w.job.Priority = false, 7
	w.pass(w.steady)
	if g := w.gangs["main-1-0"]; g.Held || g.Priority != 7 {
		t.Errorf("%+v", g)
	}
}
