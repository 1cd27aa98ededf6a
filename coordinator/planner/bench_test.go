package planner

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/decisions"
	"github.com/clary-ml/clary/scheduler/past"
)

// BenchmarkEvent is one job that comes, is placed and is gone, beside 100,000 held gangs
// and 1,000 nodes.
func BenchmarkEvent(b *testing.B) {
	b.Run("nothing is recorded", func(b *testing.B) { benchmarkEvent(b, noRecord{}) })
	b.Run("recorded", func(b *testing.B) {
		record := decisions.NewRecorder(b.TempDir(), decisions.DefaultLimits, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- record.Run(ctx) }()
		benchmarkEvent(b, record)
		cancel()
		<-done
	})
}

func benchmarkEvent(b *testing.B, record Recorder) {
	m := newMemory(record)
	for i := range 1000 {
		m.cluster.SetNode(cluster.Node{ID: fmt.Sprintf("n%04d", i), State: cluster.NodeReady, MilliCPU: 64000, Memory: 1 << 38}, cluster.Resources{})
	}
	gang := func(name string) cluster.Gang {
		return cluster.Gang{Job: name, Name: "main", Queue: "default", Attempt: 1, Revision: 1, Roles: []cluster.Role{{Name: "worker", Count: 1, Ask: cluster.Ask{MilliCPU: 1000}}}}
	}
	for i := range 100_000 {
		held := gang(fmt.Sprintf("held-%d", i))
		held.Held = true
		m.wait(held, past.Class{})
	}
	m.cluster.Plan(1)
	for b.Loop() {
		m.wait(gang("one"), past.Class{})
		if plan := m.cluster.Plan(1); len(plan.Placements) != 1 {
			b.Fatal("not placed")
		}
		m.cluster.End("one/main")
		m.unwait("one/main")
	}
}
