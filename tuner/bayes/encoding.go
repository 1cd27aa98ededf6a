package bayes

import (
	"math"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/acquisition"
	"github.com/clary-ml/clary/tuner/gp"
	"github.com/clary-ml/clary/tuner/space"
)

// tabled is the number of levels up to which an axis keeps its coordinates.
const tabled = 4096

// encoding leads between configurations and the points that models and searches work on.
// Coordinates have a number in every dimension; in points, what does not apply is NaN. If
// there are earlier sweeps, points have one more dimension: which sweep they are from, 0
// for this one. If there are learning curves, the last dimension is how far a trial went,
// the logarithm of its step with all of it at 1: models learn how much less is to be relied
// on what was stopped earlier (curves.go says what is expected of it).
type encoding struct {
	space  *space.Space
	dims   []space.Dim
	kinds  []gp.Dim
	axes   []acquisition.Axis
	tree   bool // some dimensions are not always active
	sweeps bool
	full   float64 // the step of a whole trial; 0: there are no curves

	active []bool
	coords []float64
	config space.Config
}

func newEncoding(p tuner.Problem) *encoding {
	e := &encoding{space: p.Space, dims: p.Space.Dims(), sweeps: len(p.Earlier) > 0}
	if len(p.Objectives)+len(p.Limits) == 1 && p.Fidelity.Max > 0 {
		e.full = p.Fidelity.Max
	}
	for i := range e.dims {
		d := &e.dims[i]
		e.kinds = append(e.kinds, gp.Dim{Categorical: d.Kind == space.Nominal})
		e.axes = append(e.axes, newAxis(d))
		e.tree = e.tree || d.Parent >= 0
	}
	if e.sweeps {
		e.kinds = append(e.kinds, gp.Dim{Categorical: true})
	}
	if e.full > 0 {
		e.kinds = append(e.kinds, gp.Dim{Fidelity: true})
	}
	e.active = make([]bool, len(e.dims))
	e.coords = make([]float64, len(e.dims))
	e.config = make(space.Config, len(p.Space.Names()))
	return e
}

func newAxis(d *space.Dim) acquisition.Axis {
	axis := acquisition.Axis{Levels: d.Levels, Nominal: d.Kind == space.Nominal, At: d.At, Nearest: d.Nearest}
	if d.Levels > 0 && d.Levels <= tabled {
		coords := make([]float64, d.Levels)
		for level := range coords {
			coords[level] = d.At(level)
		}
		axis.At = func(level int) float64 { return coords[level] }
	}
	return axis
}

// point writes the point of a configuration; sweep is 0 for this search's own.
func (e *encoding) point(c space.Config, sweep int) []float64 {
	x := make([]float64, len(e.kinds))
	e.space.Encode(c, x[:len(e.dims)], e.active)
	for i, active := range e.active {
		if !active {
			x[i] = math.NaN()
		}
	}
	if e.sweeps {
		x[len(e.dims)] = float64(sweep)
	}
	if e.full > 0 {
		x[len(x)-1] = 1
	}
	return x
}

// canonical writes the point of coordinates.
func (e *encoding) canonical(x, point []float64) {
	copy(point, x)
	if e.tree {
		e.space.Active(x, e.active)
		for i, active := range e.active {
			if !active {
				point[i] = math.NaN()
			}
		}
	}
	if e.sweeps {
		point[len(e.dims)] = 0
	}
	if e.full > 0 {
		point[len(point)-1] = 1
	}
}

// reached sets how far the trial of a point went.
func (e *encoding) reached(point []float64, step float64) {
	point[len(point)-1] = math.Min(math.Max(math.Log1p(step)/math.Log1p(e.full), 0), 1)
}

// snap moves a coordinate to where the dimension has one.
func (e *encoding) snap(j int, v float64) float64 {
	if axis := e.axes[j]; axis.Levels > 0 {
		return axis.At(axis.Nearest(v))
	}
	return math.Min(math.Max(v, 0), 1)
}

// domain is where suggestions for the history lie.
func (e *encoding) domain(h *tuner.History) acquisition.Domain {
	return acquisition.Domain{
		Axes: e.axes, Width: len(e.kinds), Canonical: e.canonical,
		Admits: func(x []float64) bool {
			e.space.DecodeTo(x, e.config)
			return h.Fresh(e.config)
		},
	}
}
