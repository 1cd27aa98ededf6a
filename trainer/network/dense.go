package network

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/clary-ml/clary/trainer/spec"
)

// parameter is a layer's weights or bias: its node, and where its gradient goes.
type parameter struct {
	node     *gorgonia.Node
	gradient []float32
}

// dense is x w + bias over flat rows. inputGrad is false for the first layer, whose
// input needs no gradient.
func (b *builder) dense(x *gorgonia.Node, units int, w, bias parameter, inputGrad bool) (*gorgonia.Node, error) {
	rows, in, gemm := b.rows, x.Shape().TotalSize()/b.rows, b.blas
	k := &kernel{name: "dense", shape: tensor.Shape{rows, units}, differentiable: []bool{inputGrad, true, true}}
	k.run = func(out []float32, a [][]float32) {
		for r := range rows {
			copy(out[r*units:(r+1)*units], a[2])
		}
		gemm.Sgemm(blas.NoTrans, blas.NoTrans, rows, units, in, 1, a[0], in, a[1], units, 1, out, units)
	}
	k.diff = func(n gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
		return b.denseGradients(n, grad, units, in, w, bias, inputGrad)
	}
	return b.apply(k, nil, x, w.node, bias.node)
}

func (b *builder) denseGradients(n gorgonia.Nodes, grad *gorgonia.Node, units, in int, w, bias parameter, inputGrad bool) (gorgonia.Nodes, error) {
	rows, gemm := b.rows, b.blas
	gw, err := b.apply(&kernel{name: "dense weights gradient", shape: n[1].Shape(), run: func(out []float32, a [][]float32) {
		gemm.Sgemm(blas.Trans, blas.NoTrans, in, units, rows, 1, a[0], in, a[1], units, 0, out, units)
	}}, w.gradient, n[0], grad)
	if err != nil {
		return nil, err
	}
	gb, err := b.apply(&kernel{name: "dense bias gradient", shape: n[2].Shape(), run: func(out []float32, a [][]float32) {
		clear(out)
		for r := range rows {
			add(out, a[0][r*units:(r+1)*units])
		}
	}}, bias.gradient, grad)
	if err != nil || !inputGrad {
		return gorgonia.Nodes{nil, gw, gb}, err
	}
	gx, err := b.apply(&kernel{name: "dense input gradient", shape: n[0].Shape(), run: func(out []float32, a [][]float32) {
		gemm.Sgemm(blas.NoTrans, blas.Trans, rows, in, units, 1, a[0], units, a[1], units, 0, out, in)
	}}, nil, grad, n[1])
	return gorgonia.Nodes{gx, gw, gb}, err
}

func add(to, from []float32) {
	from = from[:len(to)]
	for i := range to {
		to[i] += from[i]
	}
}

// activation applies one of spec's functions to each value. Their derivatives need only
// the result y: y > 0, 1 - y², y (1 - y).
func (b *builder) activation(x *gorgonia.Node, name string) (*gorgonia.Node, error) {
	k := &kernel{name: name, shape: x.Shape(), differentiable: []bool{true}}
	k.run = func(out []float32, a [][]float32) { activate(name, out, a[0]) }
	k.diff = func(_ gorgonia.Nodes, output, grad *gorgonia.Node) (gorgonia.Nodes, error) {
		gx, err := b.apply(&kernel{name: name + " gradient", shape: x.Shape(), run: func(out []float32, a [][]float32) {
			slope(name, out, a[0], a[1])
		}}, nil, output, grad)
		return gorgonia.Nodes{gx}, err
	}
	return b.apply(k, nil, x)
}

func activate(name string, out, x []float32) {
	x = x[:len(out)]
	switch name {
	case spec.ReLU:
		for i, v := range x {
			out[i] = max(v, 0)
		}
	case spec.Tanh:
		for i, v := range x {
			out[i] = float32(math.Tanh(float64(v)))
		}
	case spec.Sigmoid:
		for i, v := range x {
			out[i] = float32(sigmoid(float64(v)))
		}
	}
}

func slope(name string, out, y, grad []float32) {
	y, grad = y[:len(out)], grad[:len(out)]
	switch name {
	case spec.ReLU:
		for i, v := range y {
			g := grad[i]
			if v <= 0 {
				g = 0
			}
			out[i] = g
		}
	case spec.Tanh:
		for i, v := range y {
			out[i] = grad[i] * (1 - v*v)
		}
	case spec.Sigmoid:
		for i, v := range y {
			out[i] = grad[i] * v * (1 - v)
		}
	}
}

func sigmoid(v float64) float64 {
	if v >= 0 {
		return 1 / (1 + math.Exp(-v))
	}
	e := math.Exp(v)
	return e / (1 + e)
}

// dropout multiplies by a mask, which is an input of the graph.
func (b *builder) dropout(x, mask *gorgonia.Node) (*gorgonia.Node, error) {
	run := func(out []float32, a [][]float32) {
		x, m := a[0][:len(out)], a[1][:len(out)]
		for i := range out {
			out[i] = x[i] * m[i]
		}
	}
	k := &kernel{name: "dropout", shape: x.Shape(), run: run, differentiable: []bool{true, false}}
	k.diff = func(n gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
		gx, err := b.apply(&kernel{name: "dropout gradient", shape: x.Shape(), run: run}, nil, grad, n[1])
		return gorgonia.Nodes{gx, nil}, err
	}
	return b.apply(k, nil, x, mask)
}
