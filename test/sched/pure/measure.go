package main

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/score"
)

type result struct {
	took            time.Duration // of processor time
	p50, p99, worst time.Duration // by the clock
	placed          int
	bare, full      int // bytes for each node: before the first decision, and after the last
}

// policies are those that are measured: the cheapest, and that which keeps fragments of GPUs small.
func (l *load) policies() map[string]func() room.Policy {
	var demand score.Demand
	for _, role := range l.roles {
		demand.Add(role.Ask, int64(role.Count))
	}
	return map[string]func() room.Policy{
		"tightest": func() room.Policy { return room.Tightest{} },
		"gradient": func() room.Policy { return score.New(demand.Mix()) },
	}
}

// place decides on all that arrives at empty nodes, one by one: where it goes, or that there is no room.
func (l *load) place(policy room.Policy) result {
	before := heap()
	m := room.New(policy)
	for _, n := range l.nodes {
		m.Set(n, cluster.Resources{})
	}
	r := result{bare: (heap() - before) / len(l.nodes)}
	took := make([]time.Duration, len(l.roles))
	began, last := onCPU(), time.Now()
	for i, role := range l.roles {
		if allocations, _ := m.Take(l.shapes[role]); allocations != nil {
			r.placed++
			m.Settle()
		}
		now := time.Now()
		took[i] = now.Sub(last)
		last = now
	}
	r.took = onCPU() - began
	r.full = (heap() - before - 8*len(took)) / len(l.nodes)
	runtime.KeepAlive(m)
	slices.Sort(took)
	r.p50, r.p99, r.worst = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	return r
}

// batch is how many jobs come between two plans.
const batch = 1000

// plan does the same through the whole scheduler, with its queues, limits and reservations: jobs come in batches, and
// those that found no room stay. It is the time from the first job that is told to the last plan.
func (l *load) plan(policy room.Policy) time.Duration {
	c := scheduler.New(scheduler.Options{Policy: policy})
	for _, n := range l.nodes {
		c.SetNode(n, cluster.Resources{})
	}
	gangs := l.gangs(len(l.roles))
	runtime.GC()
	began := onCPU()
	for i := range gangs {
		c.Wait(scheduler.NewAsk(gangs[i]))
		if i%batch == batch-1 || i == len(gangs)-1 {
			c.Plan(int64(i))
		}
	}
	took := onCPU() - began
	runtime.KeepAlive(c)
	return took
}

// gangs are jobs of what arrives.
func (l *load) gangs(count int) []cluster.Gang {
	gangs := make([]cluster.Gang, count)
	for i := range gangs {
		gangs[i] = cluster.Gang{
			Job: fmt.Sprintf("job-%07d", i), Name: "main", Queue: "default", Owner: "ann", Attempt: 1, Revision: uint64(i + 1),
			Submitted: int64(i), Roles: []cluster.Role{*l.roles[i%len(l.roles)]},
		}
	}
	return gangs
}

// memoryOfWaiting is what the scheduler keeps for one job that waits.
func memoryOfWaiting(count int) int {
	l := synthetic(1000, 1)
	gangs := l.gangs(count)
	c := scheduler.New(scheduler.Options{})
	before := heap()
	for i := range gangs {
		c.Wait(scheduler.NewAsk(gangs[i]))
	}
	after := heap()
	runtime.KeepAlive(gangs)
	runtime.KeepAlive(c)
	return (after - before) / count
}

// onCPU is how long the program has had a processor, its garbage collector included: what others do on the machine
// does not count.
func onCPU() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err) // it only fails for wrong arguments
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// heap is how many bytes are in use.
func heap() int {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}
