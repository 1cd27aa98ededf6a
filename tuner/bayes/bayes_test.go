package bayes_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bayes"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/plain"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/tuner/stop"
	"github.com/clary-ml/clary/tuner/tunertest"
)

func TestKeepsTheLawsOfSamplers(t *testing.T) {
	// The laws ask tens of thousands of times: a small search serves them.
	small := bayes.Defaults()
	small.Candidates, small.Perturbed, small.Starts, small.FitEvals = 48, 16, 2, 12
	tunertest.Run(t, tunertest.Suite{Make: small.New, Learns: true})
}

func newPlay(t *testing.T, make tuner.Maker, p tuner.Problem) (*tuner.History, tuner.Sampler) {
	t.Helper()
	s, err := make(p)
	if err != nil {
		t.Fatal(err)
	}
	h, err := tuner.NewHistory(p)
	if err != nil {
		t.Fatal(err)
	}
	return h, s
}

// play searches for a number of trials; judge says what each measures.
func play(t *testing.T, make tuner.Maker, p tuner.Problem, trials int, judge func(map[string]expr.Value) tuner.Result) *tuner.History {
	t.Helper()
	h, s := newPlay(t, make, p)
	for range trials {
		number, err := tuner.Ask(s, h)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.End(number, judge(p.Space.Values(h.Config(number)))); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func compile(t *testing.T, parameters ...space.Parameter) *space.Space {
	t.Helper()
	s, err := space.Spec{Parameters: parameters}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func number(name string, low, high float64) space.Parameter {
	return space.Parameter{Name: name, Type: space.Float, Low: &low, High: &high}
}

func complete(values ...float64) tuner.Result {
	return tuner.Result{State: tuner.Complete, Values: values}
}

// mean of what is measured over a few seeds.
func mean(run func(seed uint64) float64) float64 {
	const seeds = 5
	sum := 0.0
	for seed := range uint64(seeds) {
		sum += run(seed) / seeds
	}
	return sum
}

func TestFindsTheBestWithinLimits(t *testing.T) {
	// x+y is to be large, and x²+y² at most 1: the best is √2.
	most := 1.0
	p := tuner.Problem{
		Space:      compile(t, number("x", 0, 2), number("y", 0, 2)),
		Objectives: []tuner.Objective{{Name: "sum", Direction: tuner.Maximize}},
		Limits:     []tuner.Limit{{Name: "square", Max: &most}},
	}
	got := mean(func(seed uint64) float64 {
		p.Seed = seed
		h := play(t, bayes.New, p, 30, func(v map[string]expr.Value) tuner.Result {
			x, y := v["x"].Number(), v["y"].Number()
			return tuner.Result{State: tuner.Complete, Values: []float64{x + y}, Limits: []float64{x*x + y*y}}
		})
		best, _ := h.Best()
		if h.Excess(best) > 0 {
			t.Fatalf("seed %d: nothing within the limit was found", seed)
		}
		return math.Sqrt2 - h.Values(best)[0]
	})
	if got > 0.03 {
		t.Fatalf("%g short of the best on average", got)
	}
}

// volume between the front of two losses and (1, 1).
func volume(h *tuner.History) float64 {
	const n = 200
	filled := 0
	for i := range n {
		lowest := 1.0
		for trial := range h.Len() {
			if h.Loss(trial, 0) <= (float64(i)+0.5)/n {
				lowest = math.Min(lowest, math.Max(h.Loss(trial, 1), 0))
			}
		}
		filled += int(math.Round(n * (1 - lowest)))
	}
	return float64(filled) / (n * n)
}

func TestFillsTheFrontOfTwoObjectives(t *testing.T) {
	p := tuner.Problem{
		Space:      compile(t, number("x", -1, 2), number("y", -1, 2), number("z", -1, 2)),
		Objectives: []tuner.Objective{{Name: "a"}, {Name: "b"}},
	}
	judge := func(v map[string]expr.Value) tuner.Result { // the front is y = z = 0.5, 0 ≤ x ≤ 1
		x, off := v["x"].Number(), math.Hypot(v["y"].Number()-0.5, v["z"].Number()-0.5)
		return complete(x*x+off, (x-1)*(x-1)+off)
	}
	of := func(make tuner.Maker, trials int) float64 {
		return mean(func(seed uint64) float64 {
			p.Seed = seed
			return volume(play(t, make, p, trials, judge))
		})
	}
	// All of the front leaves 5/6.
	if got, random := of(bayes.New, 40), of(plain.Random, 400); got < 0.69 || got < random {
		t.Fatalf("volume %g of 0.833 after 40 trials; random search has %g after 400", got, random)
	}
}

func TestLearnsUnderConditions(t *testing.T) {
	choices := []expr.Value{expr.Str("a"), expr.Str("b"), expr.Str("c")}
	method := space.Parameter{Name: "method", Type: space.Categorical, Choices: choices}
	parameters := []space.Parameter{method}
	for i, choice := range choices {
		for k := range 2 {
			q := number(fmt.Sprintf("%s%d", choice, k), -1, 1)
			q.When = &space.When{Parameter: "method", In: choices[i : i+1]}
			parameters = append(parameters, q)
		}
	}
	p := tuner.Problem{Space: compile(t, parameters...), Objectives: []tuner.Objective{{Name: "loss"}}}
	got := mean(func(seed uint64) float64 {
		p.Seed = seed
		h := play(t, bayes.New, p, 40, func(v map[string]expr.Value) tuner.Result {
			m := v["method"].String()
			x, y := v[m+"0"].Number(), v[m+"1"].Number()
			return complete(map[string]float64{"a": 0.5, "b": 0, "c": 0.2}[m] + (x-0.3)*(x-0.3) + (y+0.4)*(y+0.4))
		})
		best, _ := h.Best()
		return h.Values(best)[0]
	})
	if got > 0.01 {
		t.Fatalf("loss %g on average, the best is 0", got)
	}
}

func TestBeginsWhereAnEarlierSweepWasGood(t *testing.T) {
	p := tuner.Problem{Space: compile(t, number("x", 0, 1), number("y", 0, 1)), Objectives: []tuner.Objective{{Name: "loss"}}}
	judge := func(at float64) func(map[string]expr.Value) tuner.Result {
		return func(v map[string]expr.Value) tuner.Result {
			x, y := v["x"].Number()-at, v["y"].Number()-0.7
			return complete(x*x + y*y)
		}
	}
	earlier := tuner.Earlier{Space: p.Space, Objectives: p.Objectives}
	for trial := range play(t, bayes.New, p, 25, judge(0.2)).All() {
		earlier.Trials = append(earlier.Trials, trial)
	}
	p.Earlier = []tuner.Earlier{earlier}
	got := mean(func(seed uint64) float64 {
		p.Seed = seed
		h := play(t, bayes.New, p, 5, judge(0.3))
		best, _ := h.Best()
		return h.Values(best)[0]
	})
	if got > 0.01 {
		t.Fatalf("loss %g after 5 trials", got)
	}
}

// After twenty trials that were all stopped at a third of the way, the first few that run
// to their end are good.
func TestLearnsFromTrialsThatWereStopped(t *testing.T) {
	p := tuner.Problem{
		Space:      compile(t, number("x", 0, 1), number("y", 0, 1)),
		Objectives: []tuner.Objective{{Name: "loss"}},
		Fidelity:   tuner.Fidelity{Name: "epoch", Max: 9},
	}
	final := func(c space.Config) float64 { return (c[0]-0.3)*(c[0]-0.3) + (c[1]-0.6)*(c[1]-0.6) }
	got := mean(func(seed uint64) float64 {
		p.Seed = seed
		h, s := newPlay(t, bayes.New, p)
		for i := range 23 {
			number, err := tuner.Ask(s, h)
			if err != nil {
				t.Fatal(err)
			}
			result := complete(final(h.Config(number)))
			if i < 20 {
				result = tuner.Result{State: tuner.Stopped}
				for step := 1.0; step <= 3; step++ {
					if err := h.Report(number, step, final(h.Config(number))+math.Exp(-step/3)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := h.End(number, result); err != nil {
				t.Fatal(err)
			}
		}
		best, _ := h.Best()
		return h.Values(best)[0]
	})
	if got > 0.01 {
		t.Fatalf("loss %g on average", got)
	}
}

// However many results there are, a sampler that lived through them and one that reads
// them all suggest the same.
func TestARestartAfterManyResultsChangesNothing(t *testing.T) {
	p := floats(t, 3)
	for _, results := range []int{150, 350, 9000} {
		h := history(t, p, results, 3)
		lived, err := bayes.New(p)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			number, err := tuner.Ask(lived, h)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.End(number, complete(bowl(h.Config(number)))); err != nil {
				t.Fatal(err)
			}
		}
		sameAfterRestart(t, p, h, lived, fmt.Sprintf("%d results", results))
	}
}

// Also in the middle of curves, of which some wait at a rung.
func TestARestartInTheMiddleOfCurvesChangesNothing(t *testing.T) {
	p := floats(t, 3)
	p.Fidelity = tuner.Fidelity{Name: "epoch", Max: 9}
	h, lived := newPlay(t, bayes.New, p)
	s, err := stop.PromotingASHA(stop.Halving{}, p.Fidelity)
	if err != nil {
		t.Fatal(err)
	}
	compared := map[tuner.State]int{}
	for turn := range 150 {
		number, promoted := s.Promote(h)
		if promoted {
			err = h.Resume(number)
		} else {
			number, err = tuner.Ask(lived, h)
		}
		if err != nil {
			t.Fatal(err)
		}
		for paused := false; !paused && h.State(number) == tuner.Pending; {
			step := 1.0
			if curve := h.Curve(number); len(curve) > 0 {
				step += curve[len(curve)-1].Step
			}
			if step == p.Fidelity.Max {
				err = h.End(number, complete(bowl(h.Config(number))))
			} else if err = h.Report(number, step, bowl(h.Config(number))+10/step); err == nil && s.Judge(h, number) == stop.Pause {
				paused, err = true, h.Pause(number)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if compared[h.State(number)]++; turn%10 > 0 {
			continue
		}
		sameAfterRestart(t, p, h, lived, fmt.Sprintf("%d turns", turn+1))
	}
	if compared[tuner.Paused] < 20 || compared[tuner.Complete] < 4 {
		t.Errorf("%v: that is not what was to be tested", compared)
	}
}

func TestExtremeResultsAreSurvived(t *testing.T) {
	p := floats(t, 2)
	for name, value := range map[string]func(i int) float64{
		"equal":    func(int) float64 { return 3 },
		"huge":     func(i int) float64 { return float64(i%5-2) * 1e307 },
		"tiny":     func(i int) float64 { return float64(i%5-2) * 1e-310 },
		"outliers": func(i int) float64 { return math.Pow(-1e9, float64(i%7)) },
	} {
		i := 0
		play(t, bayes.New, p, 30, func(map[string]expr.Value) tuner.Result {
			i++
			if i%6 == 0 {
				return tuner.Result{State: tuner.Failed}
			}
			return complete(value(i))
		})
		if i != 30 {
			t.Errorf("%s: %d trials", name, i)
		}
	}
}

// sameAfterRestart compares the next suggestion with that of a sampler that has just read the
// history.
func sameAfterRestart(t *testing.T, p tuner.Problem, h *tuner.History, lived tuner.Sampler, after string) {
	t.Helper()
	restored, err := tuner.Restore(p, h.All())
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := bayes.New(p)
	if err != nil {
		t.Fatal(err)
	}
	a, errA := lived.Suggest(h)
	b, errB := fresh.Suggest(restored)
	if errA != nil || errB != nil || a.Key() != b.Key() {
		t.Fatalf("after %s: %v (%v), after a restart %v (%v)", after, a, errA, b, errB)
	}
}
