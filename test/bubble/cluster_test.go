package bubble_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
)

func TestAJobRunsToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		if _, err := w.jobs("c2").Submit(w.admin(t.Context()), work{name: "first", instances: 3, gpus: 2, length: 5 * time.Second}.request()); err != nil {
			t.Fatal(err)
		}
		view := w.ends("first", time.Minute)
		if view.GetJob().GetState() != string(cluster.JobSucceeded) || len(view.GetTasks()) != 3 {
			t.Errorf("%v", view)
		}
		w.sound()
	})
}

func TestATransformsServersEndWithItsDrivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		w.put("set/rows", "1,2")
		w.put("set/more", "3,4")
		if _, err := w.jobs("c2").Submit(w.admin(t.Context()), work{name: "first", kind: cluster.KindTransform, instances: 2, gpus: 2}.request()); err != nil {
			t.Fatal(err)
		}
		view := w.ends("first", time.Minute)
		if view.GetJob().GetState() != string(cluster.JobSucceeded) || len(view.GetTasks()) != 4 {
			t.Errorf("%v", view)
		}
		w.idle()
		w.sound()
	})
}

func TestAgentsLeaveACoordinatorThatIsCutOffBeforeTheirNodesCountAsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &tally{})
		w.found()
		leader := w.leader()
		others := slices.DeleteFunc(slices.Clone(coordinators), func(id string) bool { return id == leader })
		follower, third := others[0], others[1]
		agents := []string{"n1", "n2"}
		w.net.Cut(between(agents, []string{leader, third})) // they hear of all, and reach one
		time.Sleep(time.Minute)
		w.until("both are heard through "+follower, time.Minute, func() error { return w.nodesReady(leader) })

		w.part(between([]string{follower}, []string{leader, third}))
		if _, err := w.jobs(third).Submit(w.admin(t.Context()), work{name: "first", instances: 2, gpus: 8, length: 40 * time.Second}.request()); err != nil {
			t.Fatal(err)
		}
		w.remain("both are heard, though "+follower+" is cut off", time.Minute, func() error { return w.nodesReady(leader) })
		w.partition()
		view := w.ends("first", time.Minute)
		if view.GetJob().GetState() != string(cluster.JobSucceeded) || view.GetJob().GetAttempt() != 1 {
			t.Errorf("%v", view)
		}
		w.sound()
	})
}
