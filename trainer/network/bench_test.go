package network_test

import (
	"testing"

	"gonum.org/v1/gonum/blas/gonum"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/spec"
)

// shapes are the networks that are measured, by their layers' widths.
var shapes = []struct {
	name   string
	widths []int
	rows   int
}{
	{"784-128-128-10/128", []int{784, 128, 128, 10}, 128},
	{"digits-64-128-10/64", []int{64, 128, 10}, 64},
}

func mlp(widths []int) spec.Network {
	n := spec.Network{Input: widths[:1], Loss: spec.CrossEntropy}
	for i, w := range widths[1:] {
		activation := "relu"
		if i == len(widths)-2 {
			activation = ""
		}
		n.Layers = append(n.Layers, dense(w, activation))
	}
	return n
}

// BenchmarkStepGraph is one forward and backward pass and a plain update in this process.
func BenchmarkStepGraph(b *testing.B) {
	for library, bl := range libraries() {
		for _, s := range shapes {
			b.Run(library+"/"+s.name, func(b *testing.B) {
				plan := planOf(b, mlp(s.widths))
				g, err := network.Training(plan, s.rows, bl)
				if err != nil {
					b.Fatal(err)
				}
				network.Initialize(plan, 1, g.Weights)
				batch := randomBatch(plan, s.rows)
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := g.Step(batch); err != nil {
						b.Fatal(err)
					}
					for i, v := range g.Gradient {
						g.Weights[i] -= 0.01 * v
					}
				}
			})
		}
	}
}

// BenchmarkStepPlain is what one would write with Gorgonia alone: its own operations, a
// tape machine with bound dual values, and its own solver.
func BenchmarkStepPlain(b *testing.B) {
	for library, bl := range libraries() {
		for _, s := range shapes {
			b.Run(library+"/"+s.name, func(b *testing.B) {
				gorgonia.Use(bl)
				defer gorgonia.Use(gonum.Implementation{})
				plainLoop(b, s.widths, s.rows)
			})
		}
	}
}

func plainLoop(b *testing.B, widths []int, rows int) {
	must := func(n *gorgonia.Node, err error) *gorgonia.Node {
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	g := gorgonia.NewGraph()
	x := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithShape(rows, widths[0]), gorgonia.WithName("x"))
	y := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithShape(rows, widths[len(widths)-1]), gorgonia.WithName("y"))
	var learned gorgonia.Nodes
	out := x
	for i := range widths[1:] {
		w := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithShape(widths[i], widths[i+1]), gorgonia.WithName("w"+string(rune('0'+i))), gorgonia.WithInit(gorgonia.GlorotU(1)))
		bias := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithShape(1, widths[i+1]), gorgonia.WithName("b"+string(rune('0'+i))), gorgonia.WithInit(gorgonia.Zeroes()))
		learned = append(learned, w, bias)
		out = must(gorgonia.BroadcastAdd(must(gorgonia.Mul(out, w)), bias, nil, []byte{0}))
		if i < len(widths)-2 {
			out = must(gorgonia.Rectify(out))
		}
	}
	probability := must(gorgonia.SoftMax(out, 1))
	cost := must(gorgonia.Neg(must(gorgonia.Mean(must(gorgonia.HadamardProd(must(gorgonia.Log(probability)), y))))))
	if _, err := gorgonia.Grad(cost, learned...); err != nil {
		b.Fatal(err)
	}
	features, labels := make([]float32, rows*widths[0]), make([]float32, rows*widths[len(widths)-1])
	copy(features, randomBatch(planOf(b, mlp(widths)), rows).Features)
	for r := range rows {
		labels[r*widths[len(widths)-1]+r%widths[len(widths)-1]] = 1
	}
	if err := gorgonia.Let(x, tensor.New(tensor.WithShape(x.Shape()...), tensor.WithBacking(features))); err != nil {
		b.Fatal(err)
	}
	if err := gorgonia.Let(y, tensor.New(tensor.WithShape(y.Shape()...), tensor.WithBacking(labels))); err != nil {
		b.Fatal(err)
	}
	machine := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(learned...))
	defer machine.Close()
	solver := gorgonia.NewVanillaSolver(gorgonia.WithLearnRate(0.01))
	b.ReportAllocs()
	for b.Loop() {
		if err := machine.RunAll(); err != nil {
			b.Fatal(err)
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(learned)); err != nil {
			b.Fatal(err)
		}
		machine.Reset()
	}
}
