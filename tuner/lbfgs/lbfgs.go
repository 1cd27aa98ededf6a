// Package lbfgs minimizes smooth functions in a box: a projected L-BFGS.
//
// It is a function of its arguments: no clock, no chance, no goroutine. Budgets count
// evaluations, so that the same start ends at the same place on any machine.
package lbfgs

import "math"

// Func returns the value at x and writes its gradient to grad. It may return NaN or +Inf
// where it is not defined: such points are stepped back from.
type Func func(x, grad []float64) float64

// Options are when to stop. Zero fields take the defaults in parentheses.
type Options struct {
	Evaluations int     // of the function (100)
	Memory      int     // corrections kept (8)
	Gradient    float64 // largest component of the projected gradient (1e-5)
	Decrease    float64 // relative decrease of the value in an iteration (1e-9)
	Step        float64 // length of the first step, in the largest component (0.25)
}

func (o Options) orDefaults() Options {
	if o.Evaluations == 0 {
		o.Evaluations = 100
	}
	if o.Memory == 0 {
		o.Memory = 8
	}
	if o.Gradient == 0 {
		o.Gradient = 1e-5
	}
	if o.Decrease == 0 {
		o.Decrease = 1e-9
	}
	if o.Step == 0 {
		o.Step = 0.25
	}
	return o
}

// Minimize descends from x, which it changes in place, within lower ≤ x ≤ upper, and
// returns the least value seen: x is where. If f is not finite at the start, x stays.
//
// Variables at a bound whose gradient points outward are held for an iteration; the rest
// move along the L-BFGS direction, projected to the box, with steps halved until Armijo's
// condition holds (Bertsekas 1982, projected quasi-Newton; Liu and Nocedal 1989 for the
// direction). A correction is kept only if its curvature is positive.
func Minimize(f Func, x, lower, upper []float64, options Options) float64 {
	o := options.orDefaults()
	s := newState(x, lower, upper, o)
	s.value = f(s.x, s.grad)
	s.left = o.Evaluations - 1
	if math.IsNaN(s.value) || math.IsInf(s.value, 0) {
		return s.value
	}
	for s.left > 0 && s.freeGradient() > o.Gradient {
		s.direction()
		before := s.value
		if !s.search(f) {
			if s.pairs() == 0 {
				break
			}
			s.forget() // a stale curvature: once more along the gradient
			continue
		}
		if before-s.value <= o.Decrease*math.Max(1, math.Abs(before)) {
			break
		}
	}
	copy(x, s.x)
	return s.value
}

type state struct {
	Options
	lower, upper []float64
	x, grad      []float64
	value        float64
	left         int // evaluations

	free         []bool
	dir          []float64
	trial, gtr   []float64
	steps, diffs [][]float64 // corrections: x and gradient, oldest first
	rho, a       []float64
	spare        [][]float64
}

func newState(x, lower, upper []float64, o Options) *state {
	d := len(x)
	flat := make([]float64, 5*d)
	s := &state{
		Options: o, lower: lower, upper: upper,
		x: flat[0:d], grad: flat[d : 2*d], dir: flat[2*d : 3*d], trial: flat[3*d : 4*d], gtr: flat[4*d:],
		free: make([]bool, d), a: make([]float64, o.Memory),
	}
	for i, v := range x {
		s.x[i] = math.Min(math.Max(v, lower[i]), upper[i])
	}
	return s
}

// freeGradient marks the variables that may move, and returns the largest component of
// their gradient.
func (s *state) freeGradient() float64 {
	most := 0.0
	for i, g := range s.grad {
		s.free[i] = !(s.x[i] <= s.lower[i] && g > 0 || s.x[i] >= s.upper[i] && g < 0)
		if s.free[i] {
			most = math.Max(most, math.Abs(g))
		}
	}
	return most
}

func (s *state) pairs() int { return len(s.steps) }

func (s *state) forget() {
	s.spare = append(append(s.spare, s.steps...), s.diffs...)
	s.steps, s.diffs, s.rho = s.steps[:0], s.diffs[:0], s.rho[:0]
}

// direction writes minus the inverse Hessian's estimate times the gradient, in the free
// variables, to dir.
func (s *state) direction() {
	for i, g := range s.grad {
		s.dir[i] = 0
		if s.free[i] {
			s.dir[i] = -g
		}
	}
	for k := len(s.steps) - 1; k >= 0; k-- {
		s.a[k] = s.rho[k] * s.dot(s.steps[k], s.dir)
		s.add(-s.a[k], s.diffs[k])
	}
	if k := len(s.steps) - 1; k >= 0 {
		scale := 1 / (s.rho[k] * dot(s.diffs[k], s.diffs[k]))
		for i := range s.dir {
			s.dir[i] *= scale
		}
	}
	for k := range s.steps {
		b := s.rho[k] * s.dot(s.diffs[k], s.dir)
		s.add(s.a[k]-b, s.steps[k])
	}
	if s.dot(s.grad, s.dir) >= 0 { // not a descent in the free variables
		s.forget()
		for i, g := range s.grad {
			s.dir[i] = 0
			if s.free[i] {
				s.dir[i] = -g
			}
		}
	}
}

func (s *state) dot(a, b []float64) float64 {
	sum := 0.0
	for i, free := range s.free {
		if free {
			sum += a[i] * b[i]
		}
	}
	return sum
}

func (s *state) add(c float64, v []float64) {
	for i, free := range s.free {
		if free {
			s.dir[i] += c * v[i]
		}
	}
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

// search goes along dir, bent at the bounds, and reports whether it found less.
func (s *state) search(f Func) bool {
	step := 1.0
	if s.pairs() == 0 {
		most := 0.0
		for _, v := range s.dir {
			most = math.Max(most, math.Abs(v))
		}
		step = math.Min(1, s.Step/most)
	}
	for range 30 {
		if s.left == 0 {
			return false
		}
		slope := 0.0
		for i := range s.x {
			s.trial[i] = math.Min(math.Max(s.x[i]+step*s.dir[i], s.lower[i]), s.upper[i])
			slope += s.grad[i] * (s.trial[i] - s.x[i])
		}
		if slope >= 0 {
			return false
		}
		value := f(s.trial, s.gtr)
		s.left--
		if value <= s.value+1e-4*slope {
			s.accept(value)
			return true
		}
		step *= shorter(s.value, value, slope)
	}
	return false
}

// shorter is the minimum of the parabola through the start, its slope and the trial, as a
// share of the step, kept in [0.1, 0.5].
func shorter(start, value, slope float64) float64 {
	share := -slope / (2 * (value - start - slope))
	if !(share > 0.1) { // also NaN and infinite values
		return 0.1
	}
	return math.Min(share, 0.5)
}

func (s *state) accept(value float64) {
	step, diff := s.buffer(), s.buffer()
	for i := range s.x {
		step[i], diff[i] = s.trial[i]-s.x[i], s.gtr[i]-s.grad[i]
	}
	s.value = value
	s.x, s.trial = s.trial, s.x
	s.grad, s.gtr = s.gtr, s.grad
	if curve := dot(step, diff); curve > 1e-10*dot(diff, diff) {
		if len(s.steps) == s.Memory {
			s.spare = append(s.spare, s.steps[0], s.diffs[0])
			s.steps, s.diffs, s.rho = pop(s.steps), pop(s.diffs), pop(s.rho)
		}
		s.steps, s.diffs, s.rho = append(s.steps, step), append(s.diffs, diff), append(s.rho, 1/curve)
		return
	}
	s.spare = append(s.spare, step, diff)
}

func pop[T any](list []T) []T {
	copy(list, list[1:])
	return list[:len(list)-1]
}

func (s *state) buffer() []float64 {
	if n := len(s.spare); n > 0 {
		b := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return b
	}
	return make([]float64, len(s.x))
}
