package bayes

import (
	"cmp"
	"math"
	"slices"

	"github.com/clary-ml/clary/tuner"
)

// Trials that went to different steps are compared as if all had gone to the furthest: what
// the ones that passed a stage had there and then further on says by how much it changes.
// Stages are steps within a factor of two, so that the points of a rung are one stage.

// told is something that the history says: a point of a curve that is the trial's first at
// its stage, or the end of a trial.
type told struct {
	number int
	point  int // of the curve; -1: the end
}

// progress is how far a trial's curve has been read.
type progress struct {
	points int
	stage  int
}

// scan lists what was told since.
func (r *record) scan(h *tuner.History, e *encoding) {
	for ; r.scanned < h.Events(); r.scanned++ {
		number, ended := h.Event(r.scanned)
		switch {
		case ended:
			delete(r.open, number)
			switch h.State(number) {
			case tuner.Complete, tuner.Failed, tuner.Infeasible:
				r.told = append(r.told, told{number, -1})
			}
		case e.full > 0:
			p, known := r.open[number]
			step := h.Curve(number)[p.points].Step
			if stage := stageOf(step, e.full); !known || stage < p.stage {
				r.told = append(r.told, told{number, p.points})
				p.stage = stage
			}
			p.points++
			r.open[number] = p
		}
	}
}

// stageOf is 0 for a whole trial, 1 for more than half, 2 for more than a quarter, and so on.
func stageOf(step, full float64) int {
	return int(math.Ceil(math.Log2(math.Max(full/step, 1))))
}

// stay is what a trial had at a stage.
type stay struct {
	stage int
	value float64
}

// change is how values go on from a stage: on average by - mean + slope * (value - mean).
type change struct{ from, to, slope float64 }

func (c change) apply(v float64) float64 { return c.to + c.slope*(v-c.from) }

// pairsOfDoubt is how many pairs the belief that values keep their distances is worth.
const pairsOfDoubt = 3

// further returns for each stage what values become at the lowest that any observation has
// reached.
func further(pool []observation) map[int][]change {
	values := make(map[int][]float64)
	for _, o := range pool {
		for _, s := range o.curve {
			values[s.stage] = append(values[s.stage], s.value)
		}
	}
	stages := make([]int, 0, len(values))
	for stage := range values {
		stages = append(stages, stage)
	}
	slices.Sort(stages)
	out := make(map[int][]change)
	for i := 1; i < len(stages); i++ {
		from, to := stages[i], stages[i-1]
		c := next(pool, from, to, values[from])
		out[from] = append([]change{c}, out[to]...)
	}
	return out
}

// next is the change from a stage to the following one, by least squares.
func next(pool []observation, from, to int, all []float64) change {
	var a, b []float64
	for _, o := range pool {
		i, found := slices.BinarySearchFunc(o.curve, from, func(s stay, stage int) int { return cmp.Compare(stage, s.stage) })
		if found && i+1 < len(o.curve) && o.curve[i+1].stage == to {
			a, b = append(a, o.curve[i].value), append(b, o.curve[i+1].value)
		}
	}
	if len(a) == 0 {
		return change{slope: 1}
	}
	c := change{from: mean(a), to: mean(b)}
	center := mean(all)
	spread, squares, products := 0.0, 0.0, 0.0
	for _, v := range all {
		spread += (v - center) * (v - center) / float64(len(all))
	}
	for i, v := range a {
		squares += (v - c.from) * (v - c.from)
		products += (v - c.from) * (b[i] - c.to)
	}
	doubt := pairsOfDoubt * spread
	c.slope = (products + doubt) / (squares + doubt)
	if !(c.slope > leastSlope) || math.IsInf(c.slope, 0) {
		c.slope = leastSlope // also where all are the same
	}
	return c
}

// leastSlope keeps the order of what was stopped early.
const leastSlope = 0.05

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v / float64(len(values))
	}
	return sum
}

// compared returns the observations with values, and worths, as at the furthest stage.
func compared(pool []observation) []observation {
	if !slices.ContainsFunc(pool, func(o observation) bool { return len(o.curve) > 0 }) {
		return pool
	}
	changes := further(pool)
	out := slices.Clone(pool)
	for i := range out {
		o := &out[i]
		if len(o.curve) == 0 {
			continue
		}
		last := o.curve[len(o.curve)-1]
		v := last.value
		for _, c := range changes[last.stage] {
			v = c.apply(v)
		}
		o.metrics, o.worth = []float64{v}, v
	}
	return out
}
