package acquisition

import (
	"math"

	"github.com/clary-ml/clary/tuner/lbfgs"
)

// Axis is a dimension to search.
type Axis struct {
	Levels  int               // how many coordinates there are; 0: any in [0,1]
	Nominal bool              // levels stand in no order
	At      func(int) float64 // the coordinate of a level
	Nearest func(float64) int // the level nearest to a coordinate
}

// Domain is where to search. Points of it are coordinates of [0,1]^d.
type Domain struct {
	Axes []Axis
	// Canonical writes x as the model takes it: NaN where a dimension does not apply. Points
	// may have more numbers than there are axes: Width.
	Width     int
	Canonical func(x, point []float64)
	// Admits reports whether x may be suggested: constraints hold, and it is not used up.
	Admits func(x []float64) bool
}

// Options of a search.
type Options struct {
	Starts      int       // local searches
	Evaluations int       // of the objective's gradient, for each descent
	Lengths     []float64 // by axis: what a step of one size is
	Lower       []float64 // by axis: the box to stay in; nominal axes are not bound
	Upper       []float64
}

const (
	exhaustive = 24 // levels up to which all are tried in coordinate search
	relaxed    = 24 // levels from which a descent may move along the axis too
	rounds     = 8  // of descent and coordinate search in turn
)

type search struct {
	domain    Domain
	objective Objective
	options   Options
	smooth    []int // axes along which to descend
	stepped   []int // axes with levels
	point     []float64
	grad      []float64
}

// Maximize returns the admitted point that is worth most, as far as found: the best of the
// candidates and of local searches from some of them, drawn by their worth with the
// numbers chance in [0,1). A local search descends along continuous axes and tries levels
// one axis at a time, in turn, until neither helps. ok is false if no candidate is admitted.
func Maximize(domain Domain, objective Objective, candidates [][]float64, chance func() float64, options Options) (best []float64, value float64, ok bool) {
	s := &search{domain: domain, objective: objective, options: options, point: make([]float64, domain.Width), grad: make([]float64, domain.Width)}
	for j, axis := range domain.Axes {
		if axis.Levels > 0 {
			s.stepped = append(s.stepped, j)
		}
		if axis.Levels == 0 || !axis.Nominal && axis.Levels > relaxed {
			s.smooth = append(s.smooth, j)
		}
	}
	admitted := make([][]float64, 0, len(candidates))
	for _, x := range candidates {
		if domain.Admits(x) {
			admitted = append(admitted, x)
		}
	}
	if len(admitted) == 0 {
		return nil, math.Inf(-1), false
	}
	values := s.values(admitted)
	value = math.Inf(-1)
	for _, i := range starts(values, chance, options.Starts) {
		x := append([]float64(nil), admitted[i]...)
		if v := s.climb(x, values[i]); best == nil || v > value {
			best, value = x, v
		}
	}
	return best, value, true
}

// starts are the best value's index, and others drawn in proportion to exp(value).
func starts(values []float64, chance func() float64, count int) []int {
	top := 0
	for i, v := range values {
		if v > values[top] || math.IsNaN(values[top]) {
			top = i
		}
	}
	chosen := []int{top}
	weights := make([]float64, len(values))
	sum := 0.0
	for i, v := range values {
		if i != top {
			if w := math.Exp(v - values[top]); w > 0 {
				weights[i] = w
				sum += w
			}
		}
	}
	for len(chosen) < count && sum > 1e-300 {
		at, pick := chance()*sum, -1
		for i, w := range weights {
			if w > 0 {
				pick = i
				if at -= w; at < 0 {
					break
				}
			}
		}
		if pick < 0 {
			break
		}
		chosen = append(chosen, pick)
		sum -= weights[pick]
		weights[pick] = 0
	}
	return chosen
}

func (s *search) values(points [][]float64) []float64 {
	d := s.domain.Width
	flat := make([]float64, d*len(points))
	canonical := make([][]float64, len(points))
	for i, x := range points {
		canonical[i] = flat[i*d : (i+1)*d]
		s.domain.Canonical(x, canonical[i])
	}
	return s.objective.Values(canonical)
}

// climb changes x to what is worth most around it.
func (s *search) climb(x []float64, value float64) float64 {
	for range rounds {
		before := value
		if len(s.smooth) > 0 {
			value = s.descend(x, value)
		}
		if len(s.stepped) > 0 {
			value = s.exchange(x, value)
		}
		if len(s.smooth) == 0 || len(s.stepped) == 0 || value-before < 1e-6 {
			break
		}
	}
	return value
}

// descend moves x along the smooth axes, in lengthscales. Axes with levels are put on the
// nearest one in the end; what is not admitted or no better is not taken.
func (s *search) descend(x []float64, value float64) float64 {
	d := len(s.smooth)
	flat := make([]float64, 3*d)
	u, lower, upper := flat[:d], flat[d:2*d], flat[2*d:]
	moved := append([]float64(nil), x...)
	for k, j := range s.smooth {
		length := s.options.Lengths[j]
		u[k], lower[k], upper[k] = x[j]/length, 0, 1/length
		if s.options.Lower != nil {
			lower[k], upper[k] = s.options.Lower[j]/length, s.options.Upper[j]/length
		}
	}
	set := func(u []float64) {
		for k, j := range s.smooth {
			moved[j] = math.Min(math.Max(u[k]*s.options.Lengths[j], 0), 1)
		}
	}
	lbfgs.Minimize(func(u, grad []float64) float64 {
		set(u)
		s.domain.Canonical(moved, s.point)
		v := s.objective.Gradient(s.point, s.grad)
		for k, j := range s.smooth {
			grad[k] = -s.grad[j] * s.options.Lengths[j]
		}
		return -v
	}, u, lower, upper, lbfgs.Options{Evaluations: s.options.Evaluations, Gradient: 1e-4, Decrease: 1e-7, Step: 0.1})
	set(u)
	for _, j := range s.smooth {
		if axis := s.domain.Axes[j]; axis.Levels > 0 {
			moved[j] = axis.At(axis.Nearest(moved[j]))
		}
	}
	if !s.domain.Admits(moved) {
		return value
	}
	if v := s.values([][]float64{moved})[0]; v > value {
		copy(x, moved)
		return v
	}
	return value
}

// exchange takes the best change of one axis's level, again and again while there is one.
func (s *search) exchange(x []float64, value float64) float64 {
	for range 100 {
		var neighbours [][]float64
		for _, j := range s.stepped {
			axis := s.domain.Axes[j]
			from := axis.Nearest(x[j])
			for _, level := range tries(axis, from) {
				to := append([]float64(nil), x...)
				to[j] = axis.At(level)
				if s.inside(j, to[j]) && s.domain.Admits(to) {
					neighbours = append(neighbours, to)
				}
			}
		}
		if len(neighbours) == 0 {
			return value
		}
		top := -1
		for i, v := range s.values(neighbours) {
			if v > value {
				top, value = i, v
			}
		}
		if top < 0 {
			return value
		}
		copy(x, neighbours[top])
	}
	return value
}

func (s *search) inside(j int, v float64) bool {
	return s.options.Lower == nil || s.domain.Axes[j].Nominal || v >= s.options.Lower[j] && v <= s.options.Upper[j]
}

// tries are other levels: all if they are few, else those at distances 1, 2, 4, … both ways.
func tries(axis Axis, from int) []int {
	var levels []int
	if axis.Levels <= exhaustive || axis.Nominal && axis.Levels <= 10*exhaustive {
		for level := range axis.Levels {
			if level != from {
				levels = append(levels, level)
			}
		}
		return levels
	}
	for step := 1; step < axis.Levels; step *= 2 {
		if from-step >= 0 {
			levels = append(levels, from-step)
		}
		if from+step < axis.Levels {
			levels = append(levels, from+step)
		}
	}
	return levels
}
