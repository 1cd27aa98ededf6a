package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

func urgent(g *cluster.Gang) { g.Priority = 1 }

func atMost(gpus int64) cluster.Quota {
	return cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 1000 * gpus}}
}

func TestWhoComesLaterDoesNotOvertakeEitherWhereAQueueSaysSo(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1, Backfill: cluster.BackfillNone}, cluster.Queue{Name: "other", Weight: 1})
	s.submit(gpuGang("q", "first", 1, 4), time.Hour)
	s.step()
	s.submit(gpuGang("q", "big", 1, 8), time.Hour)
	s.step()
	for i := range 3 {
		s.now += int64(time.Second)
		s.submit(gpuGang("q", fmt.Sprint("small", i), 1, 1), time.Hour)
		s.step()
		s.expect(fmt.Sprint("small", i), "")
		if s.planner.(*scheduler.Cluster).Pending() {
			t.Error("there is something to plan, though all have been looked at")
		}
	}
	s.submit(with(gpuGang("q", "urgent", 1, 1), urgent), time.Hour)
	s.submit(gpuGang("other", "others", 1, 1), time.Hour)
	s.step()
	s.expect("urgent", "n0") // it stands before the one that waits
	s.expect("others", "n0")
}

func TestWhoHasWaitedForALimitStartsWhateverComesLater(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1, Borrow: atMost(4)}, cluster.Queue{Name: "other", Weight: 1})
	for i := range 4 {
		s.submit(gpuGang("q", fmt.Sprint("first", i), 1, 1), time.Duration(10+10*i)*time.Minute)
	}
	s.step()
	s.now++
	s.submit(gpuGang("q", "all", 1, 4), time.Hour)
	s.step()
	for i := range 4 { // each after something ended
		s.after(11 * time.Minute)
		s.submit(gpuGang("q", fmt.Sprint("small", i), 1, 1), 40*time.Minute)
		s.submit(gpuGang("other", fmt.Sprint("others", i), 1, 1), time.Minute)
		s.step()
		s.expect(fmt.Sprint("others", i), "n0") // no limit of its queue is waited for
	}
	s.expect("all", "n0")
}

func TestWhoIsUrgentGoesBeforeWhoWaitsForALimit(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1, Borrow: atMost(4)})
	s.submit(gpuGang("q", "first", 1, 2), 10*time.Hour)
	s.step()
	s.submit(gpuGang("q", "all", 1, 4), time.Hour)
	s.after(time.Hour)
	s.submit(gpuGang("q", "small", 1, 1), time.Hour)
	s.step()
	s.expect("small", "")
	s.submit(with(gpuGang("q", "urgent", 1, 1), urgent), time.Hour)
	s.step()
	s.expect("urgent", "n0")
	s.expect("small", "")
}

func TestWhenTheFirstGoesTheNextHaveTheirTurn(t *testing.T) {
	for name, play := range map[string]struct {
		queue       cluster.Queue
		runs, first int32 // GPUs of what runs without end, and of the first that waits
	}{
		"it closed its line":   {cluster.Queue{Name: "q", Weight: 1, Backfill: cluster.BackfillNone}, 4, 8},
		"it shut a limit":      {cluster.Queue{Name: "q", Weight: 1, Borrow: atMost(4)}, 1, 4},
		"room was kept for it": {cluster.Queue{Name: "q", Weight: 1}, 4, 8},
	} {
		for how, leave := range map[string]func(c *scheduler.Cluster, g cluster.Gang, now int64){
			"dropped": func(c *scheduler.Cluster, g cluster.Gang, _ int64) { c.Drop(g.ID()) },
			"paused":  func(c *scheduler.Cluster, g cluster.Gang, now int64) { c.Pause(g.ID(), now+int64(time.Hour)) },
			"held": func(c *scheduler.Cluster, g cluster.Gang, _ int64) {
				g.Held, g.Revision = true, g.Revision+1
				c.Wait(scheduler.NewAsk(g))
			},
		} {
			s := newStage(t, racks(1, 8), play.queue)
			c := s.planner.(*scheduler.Cluster)
			s.submit(gpuGang("q", "runs", 1, play.runs), 1e6*time.Hour)
			s.step()
			s.submit(gpuGang("q", "first", 1, play.first), time.Hour)
			s.after(time.Hour)
			s.now++
			s.submit(gpuGang("q", "next", 1, 1), time.Hour)
			s.step()
			s.expect("next", "")
			leave(c, s.gangs["first/main"].gang, s.now)
			if !c.Pending() {
				t.Errorf("%s, %s: nobody looks at those behind it", name, how)
			}
			if plan := c.Plan(s.now); len(plan.Placements) != 1 {
				t.Errorf("%s, %s: the next is left waiting: %v", name, how, plan)
			}
		}
	}
}
