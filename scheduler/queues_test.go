package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

func TestAQueueThatIsMadeAgainPlacesItsGangs(t *testing.T) {
	team, other := cluster.Queue{Name: "team", Weight: 1}, cluster.Queue{Name: "other", Weight: 1}
	for name, queues := range map[string][][]cluster.Queue{
		"deleted and made again":                   {{team, other}, {other}, {team, other}},
		"used before anybody describes it":         {{other}, {other}, {team, other}},
		"deleted, and used without a description":  {{team, other}, {other}},
		"deleted twice, with another in its place": {{team}, {other}, {team}, {other}, {team}},
	} {
		for _, held := range []bool{false, true} {
			s := newStage(t, racks(1, 4), queues[0]...)
			s.submit(gpuGang("team", "before", 1, 4), time.Minute)
			s.after(2 * time.Minute)
			s.expect("before", "done")
			waits := gpuGang("team", "held", 1, 1)
			waits.Attempt, waits.Revision, waits.Held = 1, 1, true
			if held { // through all that becomes of its queue
				s.planner.Wait(scheduler.NewAsk(waits))
			}
			for _, q := range queues[1:] {
				if err := s.planner.SetQueues(q); err != nil {
					t.Fatal(err)
				}
				s.step()
			}
			s.submit(gpuGang("other", "others", 1, 1), time.Hour)
			s.submit(gpuGang("team", "after", 1, 1), time.Hour)
			s.step()
			if s.where("after") != "n0" || s.where("others") != "n0" || s.planner.(*scheduler.Cluster).Pending() {
				t.Errorf("%s: the gang is at %q, the other queue's at %q", name, s.where("after"), s.where("others"))
			}
			if !held {
				continue
			}
			waits.Held, waits.Revision = false, 2
			s.planner.Wait(scheduler.NewAsk(waits))
			if plan := s.planner.Plan(s.now); len(plan.Placements) != 1 {
				t.Errorf("%s: who was held meanwhile waits on", name)
			}
		}
	}
}

func TestALineOfANameThatNoQueueMayHaveKeepsOthersFromNothing(t *testing.T) {
	s := newStage(t, racks(1, 8))
	c := s.planner.(*scheduler.Cluster)
	bad := gpuGang("No Queue!", "lost", 1, 1)
	bad.Attempt, bad.Revision = 1, 1
	c.Wait(scheduler.NewAsk(bad))
	limited := cluster.Queue{Name: "team", Weight: 1, Borrow: cluster.Quota{}.With(cluster.ResourceGPUs, 2000)}
	for range 2 {
		if err := c.SetQueues([]cluster.Queue{limited}); err != nil {
			t.Fatalf("queues that are right are refused: %v", err)
		}
	}
	s.submit(gpuGang("team", "large", 1, 4), time.Hour)
	s.submit(gpuGang("team", "small", 1, 2), time.Hour)
	s.step()
	s.expect("large", "")
	s.expect("small", "n0")
	if whys := c.LookAt([]string{bad.ID()}, s.now, nil).Whys(); len(whys) != 1 || len(whys[0].Blocks) == 0 {
		t.Errorf("of who is lost it says %+v", whys)
	}
	c.Drop(bad.ID())
	if err := c.SetQueues([]cluster.Queue{limited, {Name: "other", Weight: 1}}); err != nil {
		t.Error(err)
	}
}

func TestMoreLinesThanThereMayBeQueuesKeepNobodyFromChangingOne(t *testing.T) {
	c := scheduler.New(scheduler.Options{})
	var queues []cluster.Queue
	for i := range cluster.MaxQueues {
		queues = append(queues, cluster.Queue{Name: fmt.Sprintf("q%d", i), Weight: 1})
	}
	if err := c.SetQueues(queues[:1]); err != nil {
		t.Fatal(err)
	}
	g := gpuGang("nobody-describes-it", "one", 1, 1)
	g.Attempt, g.Revision = 1, 1
	c.Wait(scheduler.NewAsk(g))
	if err := c.SetQueues(queues); err != nil {
		t.Errorf("as many queues as there may be are refused: %v", err)
	}
}
