package scheduler_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

// crowd is a cluster of 1,000 nodes with 8 GPUs that is full, with so many gangs of few shapes waiting in 200 queues.
func crowd(b *testing.B, waiting int) *scheduler.Cluster {
	b.Helper()
	c := scheduler.New(scheduler.Options{})
	var queues []cluster.Queue
	for i := range 200 {
		queues = append(queues, cluster.Queue{Name: fmt.Sprintf("q%03d", i), Weight: 1})
	}
	if err := c.SetQueues(queues); err != nil {
		b.Fatal(err)
	}
	for i := range 1000 {
		c.SetNode(machine(fmt.Sprintf("n%04d", i), 64, 256, 8, "A100"), cluster.Resources{})
	}
	for i := range 4000 {
		c.Wait(scheduler.NewAsk(crowded("runs", i, 2)))
	}
	if plan := c.Plan(1); len(plan.Placements) != 4000 {
		b.Fatal(len(plan.Placements))
	}
	for i := range waiting {
		c.Wait(scheduler.NewAsk(crowded("waits", i, int32(1+i%8))))
	}
	c.Plan(2)
	return c
}

func crowded(name string, i int, gpus int32) cluster.Gang {
	g := gpuGang(fmt.Sprintf("q%03d", i%200), fmt.Sprint(name, i), 1, gpus)
	g.Attempt, g.Revision, g.Submitted = 1, 1, int64(i)
	return g
}

// BenchmarkPlan is one gang that ends and what that lets start, while 10,000 wait in 200 queues.
func BenchmarkPlan(b *testing.B) {
	c := crowd(b, 10_000)
	now, placed := int64(time.Minute), 0
	ends := make([]string, 0, 1<<16)
	for i := range 4000 {
		ends = append(ends, fmt.Sprintf("runs%d/main", i))
	}
	next := 10_000
	for b.Loop() {
		c.End(ends[0])
		ends = ends[1:]
		now += int64(time.Second)
		plan := c.Plan(now)
		for _, p := range plan.Placements {
			ends = append(ends, p.Gang)
			c.Wait(scheduler.NewAsk(crowded("waits", next, int32(1+next%8))))
			next++
		}
		placed += len(plan.Placements)
	}
	b.ReportMetric(float64(placed)/float64(b.N), "placed/op")
}

// BenchmarkPlanOfOneMore is one gang more that waits for room, beside 10,000.
func BenchmarkPlanOfOneMore(b *testing.B) {
	c := crowd(b, 10_000)
	i := 10_000
	for b.Loop() {
		g := crowded("waits", i, 8)
		c.Wait(scheduler.NewAsk(g))
		c.Plan(3)
		c.Drop(g.ID())
		i++
	}
}

// BenchmarkPlanOfNothing is a checkpoint that a gang wrote: nothing is to do.
func BenchmarkPlanOfNothing(b *testing.B) {
	c := crowd(b, 10_000)
	for b.Loop() {
		c.Plan(3)
	}
}

// BenchmarkPlanBehindALimit is all that waits for the limit of its queue being tried, 10,000 where 1,000 of it run.
func BenchmarkPlanBehindALimit(b *testing.B) {
	c := scheduler.New(scheduler.Options{})
	queue := cluster.Queue{Name: "q000", Weight: 1, Borrow: cluster.Quota{{Resource: cluster.ResourceGPUs, Amount: 1_000_000}}}
	if err := c.SetQueues([]cluster.Queue{queue}); err != nil {
		b.Fatal(err)
	}
	for i := range 250 {
		c.SetNode(machine(fmt.Sprintf("n%04d", i), 64, 256, 8, "A100"), cluster.Resources{})
	}
	for i := range 11_000 {
		c.Wait(scheduler.NewAsk(crowded("waits", 200*i, 1)))
	}
	if plan := c.Plan(1); len(plan.Placements) != 1000 {
		b.Fatal(len(plan.Placements))
	}
	added, now := 250, int64(1)
	for b.Loop() {
		c.SetNode(machine(fmt.Sprintf("n%04d", added), 64, 256, 8, "A100"), cluster.Resources{})
		added++
		now++
		c.Plan(now)
	}
}
