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

// observation is a trial that says something about its configuration.
type observation struct {
	number  int // of the trial; -1: of an earlier sweep
	point   []float64
	metrics []float64 // more is better; NaN where it failed
	curve   []stay    // if there are curves and it has not failed: stages descend
	worth   float64   // for choosing the best: NaN sorts last, -Inf is no candidate for it
	order   int       // among all observations
}

// record is what has been read of a history: a fold over its events, of bounded size.
type record struct {
	of      *tuner.History
	scanned int              // events
	open    map[int]progress // of trials that have not ended
	told    []told           // scanned, but not yet observed
	count   int              // told and observed so far, observations of earlier sweeps included
	prior   int              // observations of earlier sweeps
	pool    []observation
	places  map[int]int // in the pool, by trial
	region  region      // of one objective without curves; else everywhere
}

// begin reads the earlier sweeps.
func (r *record) begin(h *tuner.History, e *encoding) {
	*r = record{of: h, open: make(map[int]progress), places: make(map[int]int)}
	metrics := len(h.Problem().Objectives) + len(h.Problem().Limits)
	for _, prior := range h.Prior() {
		o := observation{number: -1, point: e.point(prior.Config, prior.Sweep+1), metrics: make([]float64, metrics)}
		for i := range o.metrics {
			o.metrics[i] = math.NaN()
			if i < len(prior.Losses) {
				o.metrics[i] = -prior.Losses[i]
			}
		}
		if e.full > 0 && len(prior.Losses) > 0 {
			o.curve = []stay{{0, o.metrics[0]}}
		}
		r.add(o, len(h.Problem().Objectives))
	}
	r.prior = r.count
}

// news counts what was told and not yet observed.
func (r *record) news(h *tuner.History, e *encoding) int {
	r.scan(h, e)
	return len(r.told)
}

// next observes what was told next.
func (r *record) next(h *tuner.History, e *encoding) {
	t := r.told[0]
	r.told = r.told[1:]
	at, known := r.places[t.number]
	o := observation{number: t.number}
	if known {
		o = r.pool[at]
	} else {
		o.point = e.point(h.Config(t.number), 0)
	}
	p := h.Problem()
	switch {
	case t.point >= 0:
		point := h.Curve(t.number)[t.point]
		o.reached(e, point.Step, -p.Objectives[0].Loss(point.Value))
	case h.State(t.number) != tuner.Complete:
		o.curve, o.metrics = nil, make([]float64, len(p.Objectives)+len(p.Limits))
		for i := range o.metrics {
			o.metrics[i] = math.NaN()
		}
	case e.full > 0:
		o.reached(e, e.full, -h.Loss(t.number, 0))
	default:
		o.metrics = make([]float64, len(p.Objectives)+len(p.Limits))
		for i := range p.Objectives {
			o.metrics[i] = -h.Loss(t.number, i)
		}
		for i, v := range h.Limits(t.number) {
			o.metrics[len(p.Objectives)+i] = -p.Limits[i].Excess(v)
		}
	}
	if !known {
		o = r.add(o, len(p.Objectives))
		if e.full == 0 && len(p.Objectives) == 1 {
			r.region.result(o, len(e.dims))
		}
		return
	}
	o.worth = o.metrics[0]
	r.pool[at] = o
	r.count++
}

// reached adds what the trial had after a step.
func (o *observation) reached(e *encoding, step, value float64) {
	stage := stageOf(step, e.full)
	o.curve = slices.DeleteFunc(slices.Clone(o.curve), func(s stay) bool { return s.stage <= stage })
	o.curve = append(o.curve, stay{stage, value})
	o.metrics = []float64{value}
	o.point = slices.Clone(o.point)
	e.reached(o.point, step)
}

// add returns the observation with what it is worth.
func (r *record) add(o observation, objectives int) observation {
	o.order = r.count
	r.count++
	o.worth = o.metrics[0]
	for _, v := range o.metrics[objectives:] {
		if v < 0 {
			o.worth = math.Inf(-1) // outside a limit
		}
	}
	if o.number >= 0 {
		r.places[o.number] = len(r.pool)
	}
	r.pool = append(r.pool, o)
	if len(r.pool) <= poolMost {
		return o
	}
	recent := slices.Clone(r.pool[len(r.pool)-poolNew:])
	rest := compared(r.pool)[:len(r.pool)-poolNew]
	r.pool = append(choose(rest, poolBest, 0, poolMost/2-poolNew, uint64(r.count)), recent...)
	clear(r.places)
	for i, o := range r.pool {
		if o.number >= 0 {
			r.places[o.number] = i
		}
	}
	return o
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
