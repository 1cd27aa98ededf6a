package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

// 80 asks would have room kept for them, where 64 may; the oldest of all can never have any.
func TestAPlanEndsThoughMoreWouldHaveRoomKeptThanMay(t *testing.T) {
	c := scheduler.New(scheduler.Options{})
	c.SetNode(machine("n0", 100, 256, 0, ""), cluster.Resources{})
	var queues []cluster.Queue
	for i := range 5 {
		queues = append(queues, cluster.Queue{Name: fmt.Sprint("q", i), Weight: 1, Backfill: cluster.BackfillConservative})
	}
	describe := func() {
		if err := c.SetQueues(queues); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(queue int, job string, cores int64) {
		g := gang(job, 1, cluster.Ask{MilliCPU: cores * 1000})
		g.Queue, g.Revision, g.Attempt, g.MaxRuntime = queues[queue].Name, 1, 1, time.Hour
		c.Wait(scheduler.NewAsk(g))
	}
	describe()
	now := int64(time.Hour)
	for i := range 10 {
		wait(0, fmt.Sprint("runs", i), 10)
	}
	if plan := c.Plan(now); len(plan.Placements) != 10 {
		t.Fatalf("%d of 10 were placed", len(plan.Placements))
	}
	wait(0, "absurd", 1000)
	c.Plan(now + 1)
	for i := range 80 {
		wait(i%5, fmt.Sprintf("small%02d", i), 1)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := range int64(3) {
			c.Plan(now + 2 + i)
			describe() // so that all are tried again
		}
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("Plan does not end")
	}
}

// Its queue is gone while it sleeps.
func TestAGangThatSleptWhileItsQueueWasDeletedIsPlaced(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "team", Weight: 1})
	s.submit(with(gpuGang("team", "later", 1, 1), func(g *cluster.Gang) { g.NotBefore = s.now + int64(time.Minute) }), 10*time.Hour)
	if err := s.planner.SetQueues(nil); err != nil {
		t.Fatal(err)
	}
	s.after(2 * time.Minute)
	s.expect("later", "n0")
}

func TestAStrictQueueLetsNobodyOvertakeWhoComesLater(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "q", Weight: 1, Backfill: cluster.BackfillNone})
	s.submit(gpuGang("q", "runs", 1, 2), 10*time.Hour)
	s.step()
	s.submit(gpuGang("q", "head", 1, 4), time.Hour)
	s.step()
	s.now++
	s.submit(gpuGang("q", "late", 1, 1), time.Hour)
	s.step()
	s.expect("late", "")
	c := s.planner.(*scheduler.Cluster)
	if s.step(); c.Pending() {
		t.Fatal("there is something to plan, though nothing has changed")
	}
	c.Drop("head/main")
	delete(s.gangs, "head/main")
	s.step()
	s.expect("late", "n0")
}

func TestWhoHasWaitedForItsQueuesLimitIsNotOvertakenByWhoComes(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1, Borrow: cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 4000}}})
	for i := range 4 {
		s.submit(gpuGang("q", fmt.Sprint("runs", i), 1, 1), time.Duration(10+10*i)*time.Minute)
	}
	s.step()
	s.now++
	s.submit(gpuGang("q", "head", 1, 4), 10*time.Hour)
	for i := range 20 {
		s.after(9 * time.Minute)
		s.submit(gpuGang("q", fmt.Sprint("small", i), 1, 1), 40*time.Minute)
	}
	s.expect("head", "n0")
}

func TestRoomToGrowIntoIsNotKeptOnceThatIsRefused(t *testing.T) {
	s := newStage(t, racks(1, 8), cluster.Queue{Name: "q", Weight: 1})
	elastic := with(gpuGang("q", "elastic", 8, 1), func(g *cluster.Gang) {
		g.Roles[0].Min, g.Roles[0].Program.Checkpoints = 2, true
	})
	s.submit(gpuGang("q", "runs", 1, 4), 2*time.Minute)
	s.step()
	s.submit(elastic, 1000*time.Hour)
	s.step()
	s.pass(s.now + int64(2*time.Minute))
	c, p := s.planner.(*scheduler.Cluster), s.gangs["elastic/main"]
	plan := c.Plan(s.now + int64(time.Minute))
	if len(plan.Evictions) != 1 || plan.Evictions[0].For != p.gang.ID() {
		t.Fatalf("it does not grow: %v", plan)
	}
	p.gang.Revision++
	s.tell(p, nil) // it runs on as it was
	other := gpuGang("q", "other", 1, 4)
	other.Revision, other.Attempt = 1, 1
	c.Wait(scheduler.NewAsk(other))
	if plan = c.Plan(s.now + int64(2*time.Minute)); len(plan.Placements) != 1 {
		t.Fatalf("the room is still kept: %v", plan)
	}
}

func TestGangsThatHaveNobodyToEvictDoNotKeepTheirQueueFromReclaiming(t *testing.T) {
	s := newStage(
		t, racks(1, 8), cluster.Queue{Name: "owed", Weight: 1, Guarantee: cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 4000}}},
		cluster.Queue{Name: "borrows", Weight: 1},
	)
	for i := range 8 {
		s.submit(gpuGang("borrows", fmt.Sprint("b", i), 1, 1), 1000*time.Hour)
	}
	s.after(time.Hour)
	for i := range int32(4) {
		s.submit(gpuGang("owed", fmt.Sprint("large", i), 1+i, 5), time.Hour)
	}
	s.now++
	s.submit(gpuGang("owed", "entitled", 1, 4), time.Hour)
	s.after(time.Minute)
	s.expect("entitled", "n0")
}

func TestWhoWaitedInAnotherOrderKeepsItsTurn(t *testing.T) {
	s := newStage(t, racks(1, 4), cluster.Queue{Name: "q", Weight: 1, Order: cluster.OrderShortest})
	s.submit(gpuGang("q", "runs", 1, 4), time.Hour)
	s.step()
	s.now++
	s.submit(gpuGang("q", "old", 1, 4), 10*time.Hour)
	s.step()
	if err := s.planner.SetQueues([]cluster.Queue{{Name: "q", Weight: 1}}); err != nil {
		t.Fatal(err)
	}
	s.now++
	s.submit(gpuGang("q", "new", 1, 4), 10*time.Hour)
	s.after(2 * time.Hour)
	s.expect("old", "n0")
}
