package paramserver_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/paramserver"
	"github.com/clary-ml/clary/trainer/spec"
)

// start is one worker with one server over TLS on the loopback, ready for rounds.
func start(b *testing.B, weights []float32) *paramserver.Client {
	b.Helper()
	parameters := len(weights)
	a := newAuthority(b)
	o := paramserver.ServerOptions{
		Workers: 1, Parameters: parameters, Optimizer: optimizers["sgd"], Digest: "d",
		Identity: a.identity("clary://task/j/g/1/server/0"),
	}
	g := serve(b, 1, o)
	co := g.client(0)
	co.Identity = a.identity("clary://task/j/g/1/worker/0")
	c, err := paramserver.Dial(b.Context(), co)
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Initialize(b.Context(), paramserver.State{Weights: weights}); err != nil {
		b.Fatal(err)
	}
	if _, err := c.Pull(b.Context(), weights); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Done(context.WithoutCancel(b.Context())); err != nil {
			b.Log(err)
		}
		c.Close()
		if err := g.group.Wait(); err != nil {
			b.Log(err)
		}
	})
	return c
}

// BenchmarkPushPull is one round without any computing: 4 bytes a parameter each way.
func BenchmarkPushPull(b *testing.B) {
	for _, n := range []int{9_610, 118_282, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			g, weights := make([]float32, n), gradient(n, 1, 1)
			c := start(b, weights)
			b.SetBytes(int64(8 * n))
			step := uint64(0)
			for b.Loop() {
				if _, err := c.PushPull(b.Context(), step, g, weights, paramserver.Stats{}); err != nil {
					b.Fatal(err)
				}
				step++
			}
		})
	}
}

// BenchmarkStepParameterServer is a whole training step with the weights in a server, to
// be compared with BenchmarkStepGraph and BenchmarkStepPlain of package network.
func BenchmarkStepParameterServer(b *testing.B) {
	libraries := map[string]network.BLAS{"gonum": network.Gonum()}
	if l, err := network.OpenBLAS(2); err == nil {
		libraries["openblas"] = l
	}
	for library, bl := range libraries {
		for _, s := range []struct {
			name   string
			widths []int
			rows   int
		}{{"784-128-128-10/128", []int{784, 128, 128, 10}, 128}, {"digits-64-128-10/64", []int{64, 128, 10}, 64}} {
			b.Run(library+"/"+s.name, func(b *testing.B) { benchStep(b, s.widths, s.rows, bl) })
		}
	}
}

func benchStep(b *testing.B, widths []int, rows int, bl network.BLAS) {
	n := spec.Network{Input: widths[:1], Loss: spec.CrossEntropy}
	for i, w := range widths[1:] {
		d := &spec.Dense{Units: w, Activation: spec.ReLU}
		if i == len(widths)-2 {
			d.Activation = ""
		}
		n.Layers = append(n.Layers, spec.Layer{Dense: d})
	}
	plan, problems := n.Plan()
	if err := problems.Err(); err != nil {
		b.Fatal(err)
	}
	graph, err := network.Training(plan, rows, bl)
	if err != nil {
		b.Fatal(err)
	}
	batch := network.Batch{Features: gradient(rows*widths[0], 1, 1), Labels: make([]float32, rows), Share: 1 / float64(rows)}
	for i := range batch.Labels {
		batch.Labels[i] = float32(i % widths[len(widths)-1])
	}
	network.Initialize(plan, 1, graph.Weights)
	c := start(b, graph.Weights)
	b.ReportAllocs()
	step := uint64(0)
	for b.Loop() {
		if _, _, err := graph.Step(batch); err != nil {
			b.Fatal(err)
		}
		if _, err := c.PushPull(b.Context(), step, graph.Gradient, graph.Weights, paramserver.Stats{}); err != nil {
			b.Fatal(err)
		}
		step++
	}
}
