package bayes_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bayes"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

func floats(tb testing.TB, d int) tuner.Problem {
	tb.Helper()
	var spec space.Spec
	for i := range d {
		low, high := -5.0, 5.0
		spec.Parameters = append(spec.Parameters, space.Parameter{Name: fmt.Sprintf("x%02d", i), Type: space.Float, Low: &low, High: &high})
	}
	compiled, err := spec.Compile()
	if err != nil {
		tb.Fatal(err)
	}
	return tuner.Problem{Space: compiled, Seed: 1, Objectives: []tuner.Objective{{Name: "loss"}}}
}

// bowl is a valley with ripples.
func bowl(c space.Config) float64 {
	loss := 0.0
	for i, v := range c {
		loss += (v-1)*(v-1)*float64(i+1) + math.Cos(3*v)
	}
	return loss
}

// history has results of random trials, and others pending.
func history(tb testing.TB, p tuner.Problem, results, pending int) *tuner.History {
	tb.Helper()
	h, err := tuner.NewHistory(p)
	if err != nil {
		tb.Fatal(err)
	}
	r := chance.New(2)
	for i := range results + pending {
		c, err := h.Draw(r)
		if err != nil {
			tb.Fatal(err)
		}
		number, err := h.Add(c)
		if err != nil {
			tb.Fatal(err)
		}
		if i < results {
			if err := h.End(number, tuner.Result{State: tuner.Complete, Values: []float64{bowl(c)}}); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return h
}

// processor is the time that the process has had, in milliseconds: unlike the clock, it does
// not count waiting for other programs.
func processor(tb testing.TB) float64 {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
}

// BenchmarkSuggest asks while a search goes on: after each suggestion a result arrives.
func BenchmarkSuggest(b *testing.B) {
	for _, at := range []struct{ results, pending int }{{50, 0}, {50, 8}, {200, 0}, {200, 8}, {500, 0}, {500, 64}, {1000, 0}, {10_000, 0}, {10_000, 64}} {
		b.Run(fmt.Sprintf("results=%d/pending=%d", at.results, at.pending), func(b *testing.B) {
			p := floats(b, 6)
			h := history(b, p, at.results, at.pending)
			s, err := bayes.New(p)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := s.Suggest(h); err != nil {
				b.Fatal(err)
			}
			var all []float64
			for b.Loop() {
				begin := processor(b)
				number, err := tuner.Ask(s, h)
				if err != nil {
					b.Fatal(err)
				}
				all = append(all, processor(b)-begin)
				if at.pending > 0 {
					number = h.Pending()[0]
				}
				if err := h.End(number, tuner.Result{State: tuner.Complete, Values: []float64{bowl(h.Config(number))}}); err != nil {
					b.Fatal(err)
				}
			}
			slices.Sort(all)
			b.ReportMetric(all[len(all)/2], "cpu-ms")
			b.ReportMetric(all[len(all)-1-len(all)/100], "p99-cpu-ms")
		})
	}
}
