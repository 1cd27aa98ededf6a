package tuner_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// BenchmarkHistory fills a history of a million trials of ten parameters, and restores it.
func BenchmarkHistory(b *testing.B) {
	var spec space.Spec
	for i := range 10 {
		low, high := 0.0, 1.0
		spec.Parameters = append(spec.Parameters, space.Parameter{Name: fmt.Sprint("x", i), Type: space.Float, Low: &low, High: &high})
	}
	s, err := spec.Compile()
	if err != nil {
		b.Fatal(err)
	}
	p := tuner.Problem{Space: s, Objectives: []tuner.Objective{{Name: "loss"}}}
	const trials = 1_000_000
	used := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := used()
	h, err := tuner.NewHistory(p)
	if err != nil {
		b.Fatal(err)
	}
	r := chance.New(1)
	for range trials {
		c, err := h.Draw(r)
		if err != nil {
			b.Fatal(err)
		}
		number, err := h.Add(c)
		if err != nil {
			b.Fatal(err)
		}
		if err := h.End(number, tuner.Result{State: tuner.Complete, Values: []float64{c[0]}}); err != nil {
			b.Fatal(err)
		}
	}
	perTrial := (used() - before) / trials
	b.Run("restore", func(b *testing.B) {
		for b.Loop() {
			if _, err := tuner.Restore(p, h.All()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(perTrial, "B/trial")
	})
}
