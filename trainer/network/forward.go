package network

import (
	"math"
	"sync"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
)

// Forward computes a network's outputs without a graph, for any number of rows at a time and by
// any number of goroutines at once: what serving needs. A row's outputs do not depend, to the bit,
// on the rows that are computed beside it.
type Forward struct {
	plan    spec.Plan
	weights []float32
	blas    BLAS
	spaces  sync.Pool // of *space
}

// space is what one run writes to.
type space struct {
	a, b    []float32
	columns []float32
}

// tile is how many rows a large layer is given at once, always: a library may sum in another
// order when there are fewer.
const tile = 16

// large is the number of weights of a dense layer from which on the library is worth its tile: below,
// rows are added up one by one in less time, 15 against 73 µs for a single row of 784-128-128-10.
const large = 1 << 18

// NewForward makes the computation of a planned network with these weights, which it keeps.
func NewForward(plan spec.Plan, weights []float32, b BLAS) (*Forward, error) {
	if len(weights) != plan.Parameters {
		return nil, fault.New(fault.Internal, "%d weights for a network of %d", len(weights), plan.Parameters)
	}
	for i, w := range weights {
		if w-w != 0 {
			return nil, fault.New(fault.Invalid, "weight %d is %v: the training diverged", i, w)
		}
	}
	return &Forward{plan: plan, weights: weights, blas: b, spaces: sync.Pool{New: func() any { return &space{} }}}, nil
}

// Run appends the outputs of all rows to out and returns it. Features are row-major.
func (f *Forward) Run(features []float32, out []float32) ([]float32, error) {
	width := spec.Volume(f.plan.Input)
	if len(features)%width != 0 {
		return out, fault.New(fault.Internal, "%d values for rows of %d", len(features), width)
	}
	s := f.spaces.Get().(*space)
	defer f.spaces.Put(s)
	for ; len(features) > tile*width; features = features[tile*width:] {
		out = f.tile(s, features[:tile*width], tile, out)
	}
	if len(features) > 0 {
		out = f.tile(s, features, len(features)/width, out)
	}
	return out, nil
}

// tile runs up to tile rows through all layers.
func (f *Forward) tile(s *space, x []float32, rows int, out []float32) []float32 {
	for _, stage := range f.plan.Stages {
		to := s.next(rows*spec.Volume(stage.Out), x)
		switch l := stage.Layer; {
		case l.Dense != nil:
			f.dense(s, to, x, stage, rows)
		case l.Conv2D != nil:
			f.conv(s, to, x, stage, rows)
		case l.Pool != nil:
			geometryOf(stage, l.Pool.Size).pool(to, x[:rows*spec.Volume(stage.In)], l.Pool.Kind == "average")
		default: // dropout and flatten are nothing here
			continue
		}
		if name := stage.Layer.ActivationOf(); name != spec.None {
			activate(name, to, to)
		}
		x = to
	}
	return append(out, x[:rows*f.plan.Outputs]...)
}

// next is room for so many values, rounded up to a whole tile of rows, in the buffer that x does
// not stand in.
func (s *space) next(values int, x []float32) []float32 {
	to := &s.a
	if len(s.a) > 0 && len(x) > 0 && &s.a[0] == &x[0] {
		to = &s.b
	}
	*to = room(*to, values)
	return *to
}

func room(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n)
	}
	return s[:n]
}

func (f *Forward) dense(s *space, to, x []float32, stage spec.Stage, rows int) {
	in, units := spec.Volume(stage.In), stage.Layer.Dense.Units
	w, bias := f.weights[stage.Weights.From:stage.Weights.To], f.weights[stage.Bias.From:stage.Bias.To]
	if _, slow := f.blas.(plain); !slow && in*units >= large {
		f.denseTile(s, to, x, w, bias, rows)
		return
	}
	var each gonum.Implementation
	for r := range rows {
		row := to[r*units : (r+1)*units]
		copy(row, bias)
		for i, v := range x[r*in : (r+1)*in] {
			if v != 0 {
				each.Saxpy(units, v, w[i*units:(i+1)*units], 1, row, 1)
			}
		}
	}
}

// denseTile is dense by the library, with zeros in place of the rows that a whole tile lacks.
func (f *Forward) denseTile(s *space, to, x, w, bias []float32, rows int) {
	units := len(bias)
	in := len(w) / units
	s.columns = room(s.columns, tile*(in+units))
	whole, sums := s.columns[:tile*in], s.columns[tile*in:]
	clear(whole[copy(whole, x[:rows*in]):])
	for r := range tile {
		copy(sums[r*units:(r+1)*units], bias)
	}
	f.blas.Sgemm(blas.NoTrans, blas.NoTrans, tile, units, in, 1, whole, in, w, units, 1, sums, units)
	copy(to, sums[:rows*units])
}

// conv goes image by image, so that every product has the same shape.
func (f *Forward) conv(s *space, to, x []float32, stage spec.Stage, rows int) {
	g := geometryOf(stage, stage.Layer.Conv2D.Kernel)
	s.columns = room(s.columns, g.patch()*g.places())
	w, bias := f.weights[stage.Weights.From:stage.Weights.To], f.weights[stage.Bias.From:stage.Bias.To]
	for r := range rows {
		g.convolve(f.blas, to[r*len(bias)*g.places():], x[r*g.image():(r+1)*g.image()], w, bias, s.columns)
	}
}

// convolve computes one image's outputs, [filters, places].
func (g geometry) convolve(gemm BLAS, out, image, w, bias, columns []float32) {
	patch, places, filters := g.patch(), g.places(), len(bias)
	g.unroll(columns, image)
	for f, v := range bias {
		fill(out[f*places:(f+1)*places], v)
	}
	gemm.Sgemm(blas.NoTrans, blas.NoTrans, filters, places, patch, 1, w, patch, columns, places, 1, out, places)
}

// pool takes the greatest or the mean of each window of every plane.
func (g geometry) pool(out, x []float32, mean bool) {
	for p := range len(x) / (g.height * g.width) {
		plane := x[p*g.height*g.width : (p+1)*g.height*g.width]
		for i := range g.places() {
			if mean {
				out[p*g.places()+i] = g.mean(plane, i)
			} else {
				out[p*g.places()+i] = plane[g.greatest(plane, i)]
			}
		}
	}
}

// Finite reports whether all outputs are numbers.
func Finite(outputs []float32) bool {
	for _, v := range outputs {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return false
		}
	}
	return true
}
