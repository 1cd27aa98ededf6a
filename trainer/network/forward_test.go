package network_test

import (
	"math"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/spec"
)

// wide has a layer that is large enough for the library.
var wide = spec.Network{Input: []int{200}, Layers: []spec.Layer{dense(1400, "relu"), dense(7, "")}, Loss: spec.CrossEntropy}

func forwardOf(t testing.TB, n spec.Network, b network.BLAS) (*network.Forward, spec.Plan, []float32) {
	t.Helper()
	plan := planOf(t, n)
	weights := make([]float32, plan.Parameters)
	network.Initialize(plan, 3, weights)
	f, err := network.NewForward(plan, weights, b)
	if err != nil {
		t.Fatal(err)
	}
	return f, plan, weights
}

// Without a graph, every kind of layer gives what Gorgonia's graph gives.
func TestForwardAgreesWithTheGraph(t *testing.T) {
	all := map[string]spec.Network{"wide": wide}
	for name, n := range networks {
		all[name] = n
	}
	for library, b := range libraries() {
		for name, n := range all {
			t.Run(library+"/"+name, func(t *testing.T) {
				f, plan, weights := forwardOf(t, n, b)
				const rows = 37 // two tiles and a part of one
				g, err := network.Inference(plan, rows, b)
				if err != nil {
					t.Fatal(err)
				}
				defer g.Close()
				copy(g.Weights, weights)
				features := randomBatch(plan, rows).Features
				want, err := g.Forward(features)
				if err != nil {
					t.Fatal(err)
				}
				got, err := f.Run(features, nil)
				if err != nil || len(got) != len(want) {
					t.Fatalf("%d outputs, %v", len(got), err)
				}
				spread := slices.Max(want) - slices.Min(want)
				if spread < 1e-3 {
					t.Fatalf("outputs are all alike: %v", want[:3])
				}
				for i := range want {
					if math.Abs(float64(got[i]-want[i])) > 1e-4*float64(spread) {
						t.Fatalf("output %d: %v, the graph has %v", i, got[i], want[i])
					}
				}
			})
		}
	}
}

// What a row gets does not depend, to the bit, on the rows beside it or on who else computes.
func TestForwardOfARowIsTheSameInAnyBatch(t *testing.T) {
	for library, b := range libraries() {
		for _, n := range []spec.Network{wide, networks["dense relu"], networks["conv, pool, dropout"]} {
			f, plan, _ := forwardOf(t, n, b)
			const rows = 60
			width := spec.Volume(plan.Input)
			features := randomBatch(plan, rows).Features
			var alone []float32
			for r := range rows {
				var err error
				if alone, err = f.Run(features[r*width:(r+1)*width], alone); err != nil {
					t.Fatal(err)
				}
			}
			rapid.Check(t, func(rt *rapid.T) {
				from := rapid.IntRange(0, rows-1).Draw(rt, "from")
				to := rapid.IntRange(from+1, rows).Draw(rt, "to")
				var wait sync.WaitGroup
				for range 2 {
					wait.Go(func() {
						got, err := f.Run(features[from*width:to*width], nil)
						if err != nil || !slices.Equal(got, alone[from*plan.Outputs:to*plan.Outputs]) {
							rt.Errorf("%s: rows %d to %d differ from the same rows alone (%v)", library, from, to, err)
						}
					})
				}
				wait.Wait()
			})
		}
	}
}

func TestForwardRefusesWeightsThatCannotBe(t *testing.T) {
	plan := planOf(t, networks["dense"])
	weights := make([]float32, plan.Parameters)
	weights[4] = float32(math.NaN())
	if _, err := network.NewForward(plan, weights, network.Gonum()); !fault.Is(err, fault.Invalid) {
		t.Errorf("a weight that is NaN: %v", err)
	}
	if _, err := network.NewForward(plan, weights[:3], network.Gonum()); err == nil {
		t.Error("too few weights are taken")
	}
	f, _, _ := forwardOf(t, networks["dense"], network.Gonum())
	if _, err := f.Run(make([]float32, 7), nil); err == nil {
		t.Error("a row and a half is taken")
	}
}

func BenchmarkForward(b *testing.B) {
	for library, bl := range libraries() {
		for _, s := range shapes {
			for _, rows := range []int{1, 16, 64} {
				b.Run(library+"/"+s.name+"/"+string(rune('0'+rows/10))+string(rune('0'+rows%10)), func(b *testing.B) {
					f, plan, _ := forwardOf(b, mlp(s.widths), bl)
					features := randomBatch(plan, rows).Features
					var out []float32
					b.ReportAllocs()
					for b.Loop() {
						var err error
						if out, err = f.Run(features, out[:0]); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
