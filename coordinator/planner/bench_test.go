package planner

import (
	"fmt"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

func TestHeldGangsCostNothingAtAnEvent(t *testing.T) {
	m := newMemory()
	for i := range 10 {
		m.putGang(cluster.Gang{Job: fmt.Sprint(i), Name: "main", Held: true, Revision: 1}, false)
	}
	m.gained = true
	if asks := m.candidates(1); len(asks) != 0 || m.pending() || len(m.waiting) != 10 {
		t.Errorf("%d held gangs are tried, %d are known", len(asks), len(m.waiting))
	}
}

// BenchmarkEvent is one job that comes, is placed and is gone, beside 100,000 held gangs
// and 1,000 nodes.
func BenchmarkEvent(b *testing.B) {
	m := newMemory()
	for i := range 1000 {
		m.putNode(cluster.Node{ID: fmt.Sprintf("n%04d", i), State: cluster.NodeReady, MilliCPU: 64000, Memory: 1 << 38}, cluster.Resources{})
	}
	gang := func(name string) cluster.Gang {
		return cluster.Gang{Job: name, Name: "main", Attempt: 1, Revision: 1, Roles: []cluster.Role{{Name: "worker", Count: 1, Ask: cluster.Ask{MilliCPU: 1000}}}}
	}
	for i := range 100_000 {
		held := gang(fmt.Sprintf("held-%d", i))
		held.Held = true
		m.putGang(held, false)
	}
	m.candidates(1)
	for b.Loop() {
		m.putGang(gang("one"), false)
		if plan := scheduler.Schedule(m.view, m.candidates(1), 1); len(plan.Placements) != 1 {
			b.Fatal("not placed")
		}
		m.putGang(gang("one"), true)
	}
}
