package tuner_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// BenchmarkBytesOfATrial reports what a complete trial of a million takes in the heap, by how
// many parameters it has.
func BenchmarkBytesOfATrial(b *testing.B) {
	const trials = 1_000_000
	for _, parameters := range []int{2, 8, 20} {
		b.Run(fmt.Sprintf("parameters=%d", parameters), func(b *testing.B) {
			var spec space.Spec
			for i := range parameters {
				spec.Parameters = append(spec.Parameters, space.Parameter{Name: fmt.Sprintf("x%d", i), Type: space.Float, Low: number(0), High: number(1)})
			}
			s, err := spec.Compile()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				before := heap()
				h := begin(b, tuner.Problem{Space: s})
				r := chance.New(1)
				c := make(space.Config, parameters)
				for n := range trials {
					for i := range c {
						c[i] = r.Float64()
					}
					if _, err := h.Add(c); err != nil {
						b.Fatal(err)
					}
					if err := h.End(n, tuner.Result{State: tuner.Complete, Values: []float64{c[0]}}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(heap()-before)/trials, "B/trial")
				runtime.KeepAlive(h)
			}
		})
	}
}

// heap is how many bytes of it are in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
