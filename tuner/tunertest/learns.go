package tunertest

import (
	"math"
	"slices"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/plain"
	"github.com/clary-ml/clary/tuner/space"
)

// seeds are those of a comparison; the median counts.
const seeds = 9

// search plays so many trials without noise and hands back the history; nil if the sampler
// refuses the problem.
func search(t *testing.T, maker tuner.Maker, p tuner.Problem, trials int, measure func(values map[string]expr.Value) tuner.Result) *tuner.History {
	t.Helper()
	sampler, err := maker(p)
	if fault.Is(err, fault.Invalid) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	h, err := tuner.NewHistory(p)
	if err != nil {
		t.Fatal(err)
	}
	for range trials {
		number, err := tuner.Ask(sampler, h)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.End(number, measure(p.Space.Values(h.Config(number)))); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// median plays all seeds and scores them, less is better; ok is false if the sampler
// refuses the problem.
func median(t *testing.T, maker tuner.Maker, p tuner.Problem, trials int, measure func(map[string]expr.Value) tuner.Result, score func(*tuner.History) float64) (middle float64, ok bool) {
	t.Helper()
	var scores []float64
	for seed := range uint64(seeds) {
		p.Seed = seed
		h := search(t, maker, p, trials, measure)
		if h == nil {
			return 0, false
		}
		scores = append(scores, score(h))
	}
	slices.Sort(scores)
	return scores[seeds/2], true
}

// against compares with random search of so many times the trials.
func (s Suite) against(t *testing.T, p tuner.Problem, trials, times int, measure func(map[string]expr.Value) tuner.Result, score func(*tuner.History) float64) {
	t.Helper()
	got, ok := median(t, s.Make, p, trials, measure, score)
	if !ok {
		t.Skip("the sampler does not take this problem")
	}
	random, _ := median(t, plain.Random, p, trials*times, measure, score)
	if !(got < random) {
		t.Errorf("%d trials end at %v, and %d random ones at %v", trials, got, trials*times, random)
	}
}

func complete(values ...float64) tuner.Result {
	return tuner.Result{State: tuner.Complete, Values: values}
}

func bestLoss(h *tuner.History) float64 {
	number, ok := h.Best()
	if !ok || h.Excess(number) > 0 {
		return math.Inf(1)
	}
	return h.Loss(number, 0)
}

// distance is the squared distance of x0, x1, ... from a point, in tenths of the box.
func distance(values map[string]expr.Value, to float64) float64 {
	sum := 0.0
	for _, name := range sortedNames(values) {
		if name[0] == 'x' {
			off := (values[name].Number() - to) / 10
			sum += off * off
		}
	}
	return sum
}

func sortedNames(values map[string]expr.Value) []string {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names) // sums must not depend on the order
	return names
}

func (s Suite) learns(t *testing.T) {
	s.against(t, square(t, 3, 0), 60, 8, func(v map[string]expr.Value) tuner.Result { return complete(distance(v, -2)) }, bestLoss)
}

// learnsLimits: the best lies at the border of what the limit allows.
func (s Suite) learnsLimits(t *testing.T) {
	p, most := square(t, 3, 0), 0.02
	p.Limits = []tuner.Limit{{Name: "memory", Max: &most}}
	s.against(t, p, 60, 4, func(v map[string]expr.Value) tuner.Result {
		r := complete(distance(v, -3))
		r.Limits = []float64{distance(v, 1)}
		return r
	}, bestLoss)
}

// learnsConditions: one of three branches is good, and has parameters of its own.
func (s Suite) learnsConditions(t *testing.T) {
	spec := square(t, 2, 0).Space.Spec()
	spec.Parameters = append(spec.Parameters, space.Parameter{Name: "branch", Type: space.Categorical, Choices: []expr.Value{expr.Str("a"), expr.Str("b"), expr.Str("c")}})
	for _, own := range []string{"a", "b", "c"} {
		low, high := -5.0, 5.0
		for _, n := range []string{"0", "1"} {
			spec.Parameters = append(spec.Parameters, space.Parameter{
				Name: "x" + own + n, Type: space.Float, Low: &low, High: &high,
				When: &space.When{Parameter: "branch", In: []expr.Value{expr.Str(own)}},
			})
		}
	}
	compiled, err := spec.Compile()
	if err != nil {
		t.Fatal(err)
	}
	p := tuner.Problem{Space: compiled, Objectives: []tuner.Objective{{Name: "loss"}}}
	s.against(t, p, 80, 3, func(v map[string]expr.Value) tuner.Result {
		loss := distance(v, 2)
		if v["branch"] != expr.Str("b") {
			loss += 0.2
		}
		return complete(loss)
	}, bestLoss)
}

// learnsFront: of the distances to two points, by the area that the front leaves uncovered.
func (s Suite) learnsFront(t *testing.T) {
	p := square(t, 3, 0)
	p.Objectives = []tuner.Objective{{Name: "near"}, {Name: "far", Direction: tuner.Maximize}}
	s.against(t, p, 80, 2, func(v map[string]expr.Value) tuner.Result {
		return complete(distance(v, -2), -distance(v, 2))
	}, func(h *tuner.History) float64 {
		front := h.Front()
		slices.SortFunc(front, func(a, b int) int { return int(math.Copysign(1, h.Loss(a, 0)-h.Loss(b, 0))) })
		area, reached := 0.0, 1.0
		for _, number := range front {
			if x, y := h.Loss(number, 0), h.Loss(number, 1); x < 1 && y < reached {
				area += (1 - x) * (reached - y)
				reached = y
			}
		}
		return 1 - area
	})
}

// learnsEarlier: few trials after a sweep of a like function are better than without it.
func (s Suite) learnsEarlier(t *testing.T) {
	p := square(t, 4, 0)
	measure := func(v map[string]expr.Value) tuner.Result { return complete(distance(v, -2)) }
	alone, ok := median(t, s.Make, p, 12, measure, bestLoss)
	if !ok {
		t.Skip("the sampler does not take this problem")
	}
	p.Seed = 99
	before := search(t, plain.Random, p, 100, func(v map[string]expr.Value) tuner.Result { return complete(7 + 3*distance(v, -2.5)) })
	p.Earlier = []tuner.Earlier{{Space: p.Space, Objectives: p.Objectives, Trials: slices.Collect(before.All())}}
	if warm, _ := median(t, s.Make, p, 12, measure, bestLoss); !(warm < alone) {
		t.Errorf("12 trials end at %v after an earlier sweep, and at %v alone", warm, alone)
	}
}
