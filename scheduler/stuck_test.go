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
