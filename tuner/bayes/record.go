package bayes

import (
	"cmp"
	"math"
	"slices"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
)

const (
	poolMost  = 4000 // observations kept; beyond, they are thinned to half
	poolBest  = 700  // of those kept then, the best
	poolNew   = 500  // the newest, and for the rest a random sample
	modelMost = 300  // observations that a model is conditioned on
	modelBest = 120  // of those, the best
	modelNear = 120  // those nearest to the best, and for the rest a random sample
	fitMost   = 160  // observations that hyperparameters are fitted to
)

// observation is a trial that ended and says something about its configuration.
type observation struct {
	point   []float64
	metrics []float64 // more is better; NaN where it failed
	worth   float64   // for choosing the best: NaN sorts last, -Inf is no candidate for it
	partial bool      // of a trial that was stopped on the way
	order   int       // among all observations
}

// record is what has been read of a history: a fold over the trials that ended, of bounded
// size.
type record struct {
	of    *tuner.History
	read  int // of Ended
	count int // observations so far, those of earlier sweeps included
	prior int // observations of earlier sweeps
	pool  []observation
}

// begin reads the earlier sweeps.
func (r *record) begin(h *tuner.History, e *encoding) {
	*r = record{of: h}
	metrics := len(h.Problem().Objectives) + len(h.Problem().Limits)
	for _, prior := range h.Prior() {
		o := observation{point: e.point(prior.Config, prior.Sweep+1), metrics: make([]float64, metrics)}
		for i := range o.metrics {
			o.metrics[i] = math.NaN()
			if i < len(prior.Losses) {
				o.metrics[i] = -prior.Losses[i]
			}
		}
		r.add(o, len(h.Problem().Objectives))
	}
	r.prior = r.count
}

// news counts the observations not yet read.
func (r *record) news(h *tuner.History, e *encoding) int {
	count := 0
	for _, number := range h.Ended()[r.read:] {
		if tells(h, e, int(number)) {
			count++
		}
	}
	return count
}

// tells reports whether a trial that ended says something about its configuration.
func tells(h *tuner.History, e *encoding, number int) bool {
	switch h.State(number) {
	case tuner.Complete, tuner.Failed, tuner.Infeasible:
		return true
	case tuner.Stopped:
		return e.full > 0 && len(h.Curve(number)) > 0
	}
	return false
}

// next reads up to the next observation.
func (r *record) next(h *tuner.History, e *encoding) {
	for {
		number := int(h.Ended()[r.read])
		r.read++
		if tells(h, e, number) {
			r.add(observe(h, e, number), len(h.Problem().Objectives))
			return
		}
	}
}

func observe(h *tuner.History, e *encoding, number int) observation {
	p := h.Problem()
	o := observation{point: e.point(h.Config(number), 0), metrics: make([]float64, len(p.Objectives)+len(p.Limits))}
	if h.State(number) == tuner.Stopped {
		curve := h.Curve(number)
		last := curve[len(curve)-1]
		e.reached(o.point, last.Step)
		o.metrics[0] = -p.Objectives[0].Loss(last.Value)
		o.partial = true
		return o
	}
	for i := range o.metrics {
		switch {
		case h.State(number) != tuner.Complete:
			o.metrics[i] = math.NaN()
		case i < len(p.Objectives):
			o.metrics[i] = -h.Loss(number, i)
		default:
			o.metrics[i] = -p.Limits[i-len(p.Objectives)].Excess(h.Limits(number)[i-len(p.Objectives)])
		}
	}
	return o
}

func (r *record) add(o observation, objectives int) {
	o.order = r.count
	r.count++
	o.worth = o.metrics[0]
	if o.partial {
		o.worth = math.Inf(-1)
	}
	for _, v := range o.metrics[objectives:] {
		if v < 0 {
			o.worth = math.Inf(-1) // outside a limit
		}
	}
	r.pool = append(r.pool, o)
	if len(r.pool) > poolMost {
		recent := slices.Clone(r.pool[len(r.pool)-poolNew:])
		rest := r.pool[:len(r.pool)-poolNew]
		r.pool = append(choose(rest, poolBest, 0, poolMost/2-poolNew, uint64(r.count)), recent...)
	}
}

// choose keeps most observations: the best, then the nearest to the very best, then a
// random sample; in their old order.
func choose(from []observation, best, near, most int, seed uint64) []observation {
	if len(from) <= most {
		return from
	}
	rest := slices.Clone(from)
	slices.SortStableFunc(rest, func(a, b observation) int { return -cmp.Compare(a.worth, b.worth) })
	kept, rest := slices.Clone(rest[:best]), rest[best:]
	if near > 0 {
		centre := kept[0].point
		distances := make(map[int]float64, len(rest))
		for _, o := range rest {
			distances[o.order] = distance(o.point, centre)
		}
		slices.SortStableFunc(rest, func(a, b observation) int { return cmp.Compare(distances[a.order], distances[b.order]) })
		kept, rest = append(kept, rest[:near]...), rest[near:]
	}
	r := chance.New(seed, 'c', 'h', 'o', 'o', 's', 'e')
	for len(kept) < most {
		i := r.IntN(len(rest))
		kept = append(kept, rest[i])
		rest[i] = rest[len(rest)-1]
		rest = rest[:len(rest)-1]
	}
	slices.SortFunc(kept, func(a, b observation) int { return cmp.Compare(a.order, b.order) })
	return kept
}

func distance(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		switch t := v - b[i]; {
		case t == t:
			sum += t * t
		case v == v || b[i] == b[i]:
			sum++
		}
	}
	return sum
}

// sample is what models are made from.
type sample struct {
	points  [][]float64
	metrics [][]float64 // by metric
}

func newSample(from []observation, metrics int) sample {
	s := sample{points: make([][]float64, len(from)), metrics: make([][]float64, metrics)}
	for i, o := range from {
		s.points[i] = o.point
	}
	for m := range s.metrics {
		y := make([]float64, len(from))
		for i, o := range from {
			y[i] = o.metrics[m]
		}
		s.metrics[m] = impute(y)
	}
	return s
}

// impute replaces what failed by the worst result, less half the distance from it to the
// median.
func impute(y []float64) []float64 {
	out := make([]float64, 0, len(y))
	for _, v := range y {
		if v == v {
			out = append(out, v)
		}
	}
	if len(out) == len(y) {
		return out
	}
	bad := 0.0
	if len(out) > 0 {
		slices.Sort(out)
		least, middle := out[0], out[len(out)/2]
		if bad = least - (middle/2 - least/2); math.IsInf(bad, 0) {
			bad = least
		}
	}
	out = out[:0]
	for _, v := range y {
		if v != v {
			v = bad
		}
		out = append(out, v)
	}
	return out
}
