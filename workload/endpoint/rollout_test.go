package endpoint_test

import (
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/endpoint"
)

// updating is a world whose endpoint is at a phase of an update from one spec to the other.
func updating(t *testing.T, w *world, to string, phase cluster.RolloutPhase) *world {
	t.Helper()
	w.pass(w.steady)
	if err := w.update(to, endpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	w.pass(func() bool { return w.e.Rollout != nil && w.e.Rollout.Phase == phase })
	return w
}

// takenOver lets the update go on, and demands that it ends well.
func (w *world) takenOver(t *testing.T) {
	t.Helper()
	w.pass(w.steady)
	if w.e.Generation != 2 {
		t.Errorf("it did not take over: %+v", w.e.Notes)
	}
}

func canary(version, variant string) string {
	return `{"variants": [{"program": {"command": ["serve", "` + version + `"]}` + variant + `}], "update": {"strategy": "canary", "step": "10%", "bake": "5m"}}`
}

func TestAnUpdateGoesOnWhenSomebodyAsksAnEndpointThatSleeps(t *testing.T) {
	const sleeps = `, "scaling": {"min": 0, "max": 4, "initial": 0}`
	for _, fleet := range []string{"main-1", "main-2"} {
		w := updating(t, newWorld(t.Fatalf, canary("1", sleeps), 3, 20), canary("2", sleeps), cluster.RolloutBaking)
		e, err := endpoint.Scale(*w.e, fleet, 1, nil, "somebody asked", w.now)
		_ = w.ask("scale", e, err)
		w.takenOver(t)
	}
}

func TestANewReplicaMayBeTooBusyToSayThatItIsWell(t *testing.T) {
	for _, phase := range []cluster.RolloutPhase{cluster.RolloutBaking, cluster.RolloutRetiring} {
		w := updating(t, newWorld(t.Fatalf, canary("1", ""), 3, 20), canary("2", ""), phase)
		w.report(w.gangs["main-2-0"], cluster.TaskRunning, false)
		w.settle()
		w.now = w.e.Rollout.Since + int64(5*time.Minute) - 1 // its last moment, and it is busy still
		w.settle()
		if w.e.Rollout == nil || w.e.Rollout.Phase != phase {
			t.Fatalf("%s: it is %+v: %+v", phase, w.e.Rollout, w.e.Notes)
		}
		w.report(w.gangs["main-2-0"], cluster.TaskRunning, true)
		w.takenOver(t)
	}
}

func TestANewReplicaMayLoseItsNode(t *testing.T) {
	w := updating(t, newWorld(t.Fatalf, canary("1", ""), 3, 20), canary("2", ""), cluster.RolloutBaking)
	task, _ := w.task(w.gangs["main-2-0"])
	for _, n := range w.nodes {
		if n.name == task.Allocation.Node {
			w.lose(n)
		}
	}
	w.takenOver(t)
}

func TestAnUpdateThatIsDoneNeedsNoRoomForWhatTheLoadAsksBesides(t *testing.T) {
	spec := func(version string) string {
		return `{"variants": [{"program": {"command": ["serve", "` + version + `"]}, "scaling": {"min": 2, "max": 9}}], "update": {"wait": "10m", "bake": "1m"}}`
	}
	for _, phase := range []cluster.RolloutPhase{cluster.RolloutBaking, cluster.RolloutRetiring} {
		w := updating(t, newWorld(t.Fatalf, spec("1"), 1, 5), spec("2"), phase)
		e, err := endpoint.Scale(*w.e, "main-2", 4, nil, "load", w.now)
		_ = w.ask("scale", e, err)
		w.takenOver(t)
		w.is(t, "main-2-0", "main-2-1", "main-2-2", "main-2-3") // with the room of the old ones
	}
}

func TestAStepWhoseAlarmsNobodyWatchedDoesNotEnd(t *testing.T) {
	spec := func(version string) string {
		return `{"variants": [{"program": {"command": ["serve", "` + version + `"]}}], "update": {"strategy": "canary", "step": "10%", "bake": "5m", "startup": "20m", "alarms": {"error_rate": 0.1}}}`
	}
	w := updating(t, newWorld(t.Fatalf, spec("1"), 3, 20), spec("2"), cluster.RolloutBaking)
	began := w.now
	if _, noted := endpoint.Quiet(*w.e, w.now); noted {
		t.Error("what is noted before a step's end says nothing of it")
	}
	w.now = began + int64(24*time.Minute)
	w.settle()
	if r := w.e.Rollout; r == nil || r.Step != 0 || r.Phase != cluster.RolloutBaking {
		t.Fatalf("it is %+v: %+v", w.e.Rollout, w.e.Notes)
	}
	e, noted := endpoint.Quiet(*w.e, w.now)
	if !noted {
		t.Fatal("it cannot be noted that no alarm went off")
	}
	_ = w.ask("watched", e, nil)
	w.settle()
	if r := w.e.Rollout; r == nil || r.Step != 1 {
		t.Fatalf("it is %+v: %+v", w.e.Rollout, w.e.Notes)
	}
	w.now += int64(25 * time.Minute)
	w.settle()
	if last := w.e.Notes[len(w.e.Notes)-1]; w.e.Rollout != nil || !contains(last.Text, "to generation 1: nobody watched its alarms for 20m") {
		t.Errorf("%+v", w.e.Notes)
	}
}
