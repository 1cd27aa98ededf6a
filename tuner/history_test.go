package tuner_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/tuner/tunertest"
)

func number(v float64) *float64 { return &v }

func ints(t testing.TB, high float64, constraints ...string) *space.Space {
	t.Helper()
	s, err := space.Spec{
		Parameters:  []space.Parameter{{Name: "a", Type: space.Int, Low: number(0), High: &high}, {Name: "b", Type: space.Int, Low: number(0), High: &high}},
		Constraints: constraints,
	}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func begin(t testing.TB, p tuner.Problem) *tuner.History {
	t.Helper()
	if p.Objectives == nil {
		p.Objectives = []tuner.Objective{{Name: "loss"}}
	}
	h, err := tuner.NewHistory(p)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestProblemsAreCheckedWhole(t *testing.T) {
	p := tuner.Problem{
		Space:      ints(t, 3),
		Objectives: []tuner.Objective{{Name: "loss", Direction: "down"}, {Name: "loss"}},
		Limits:     []tuner.Limit{{Name: "memory"}, {Name: "", Min: number(2), Max: number(1)}, {Name: "x", Max: number(math.NaN())}},
		Fidelity:   tuner.Fidelity{Max: math.NaN()},
		Budget:     -1,
		Workers:    -1,
		Initial:    []space.Config{{0, 9}, {1}},
	}
	want := `objectives[0].direction: "down": give minimize or maximize
objectives[1].name: "loss" is objectives[0].name already
limits[0]: has no bound: give min, max or both
limits[1].name: is missing: name the metric
limits[1].max: 1 is below min 2: exchange them
limits[2]: NaN is no bound: give a finite number
fidelity.max: NaN: give a number above 0
budget: -1: give 0 for unknown, or more
workers: -1: give 0 for unknown, or more
initial[0].b: 9: give an int from 0 to 3
initial[1]: 1 numbers for 2 parameters`
	if got := p.Validate().Error(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if _, err := tuner.NewHistory(tuner.Problem{}); err == nil || !strings.Contains(err.Error(), "space: is missing") {
		t.Error(err)
	}
}

func TestTheBestIsFeasibleFirstAndTheFirstOfEquals(t *testing.T) {
	h := begin(t, tuner.Problem{
		Space: ints(t, 9), Objectives: []tuner.Objective{{Name: "accuracy", Direction: tuner.Maximize}},
		Limits: []tuner.Limit{{Name: "memory", Max: number(10)}},
	})
	if _, ok := h.Best(); ok {
		t.Error("nothing is complete")
	}
	for i, step := range []struct {
		result tuner.Result
		best   int
	}{
		{tuner.Result{State: tuner.Failed}, -1},
		{tuner.Result{State: tuner.Complete, Values: []float64{0.9}, Limits: []float64{14}}, 1},
		{tuner.Result{State: tuner.Complete, Values: []float64{0.1}, Limits: []float64{12}}, 2},
		{tuner.Result{State: tuner.Complete, Values: []float64{0.2}, Limits: []float64{10}}, 3},
		{tuner.Result{State: tuner.Complete, Values: []float64{0.2}, Limits: []float64{1}}, 3},
		{tuner.Result{State: tuner.Complete, Values: []float64{math.Inf(1)}, Limits: []float64{1}}, 3},
		{tuner.Result{State: tuner.Complete, Values: []float64{0.3}, Limits: []float64{math.NaN()}}, 3},
		{tuner.Result{State: tuner.Complete, Values: []float64{0.3}, Limits: []float64{-1e300}}, 7},
		{tuner.Result{State: tuner.Stopped}, 7},
	} {
		if _, err := h.Add(space.Config{float64(i), 0}); err != nil {
			t.Fatal(err)
		}
		if err := h.End(i, step.result); err != nil {
			t.Fatal(err)
		}
		if best, ok := h.Best(); ok != (step.best >= 0) || ok && best != step.best {
			t.Errorf("after trial %d the best is %d", i, best)
		}
	}
	if got := []tuner.State{h.State(5), h.State(6)}; !slices.Equal(got, []tuner.State{tuner.Failed, tuner.Failed}) {
		t.Error("what is not finite is", got)
	}
}

func TestWrongReportsAreRefusedAndChangeNothing(t *testing.T) {
	h := begin(t, tuner.Problem{Space: ints(t, 9)})
	for range 2 {
		if _, err := h.Add(space.Config{0, 0}); err != nil { // the same twice, by hand
			t.Fatal(err)
		}
	}
	if err := h.Report(0, 2, 0.5); err != nil {
		t.Fatal(err)
	}
	if err := h.End(1, tuner.Result{State: tuner.Cancelled}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Add(space.Config{1, 1}); err != nil {
		t.Fatal(err)
	}
	if err := h.Pause(2); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(slices.Collect(h.All()))
	_, outside := h.Add(space.Config{0, 0.5})
	for i, c := range []struct {
		err  error
		kind fault.Kind
		want string
	}{
		{outside, fault.Invalid, "trial 3: b: 0.5: give an int from 0 to 9"},
		{h.Report(0, 2, 1), fault.Invalid, "trial 0: step 2: steps are above 0 and ascend"},
		{h.Report(0, math.NaN(), 1), fault.Invalid, "step NaN"},
		{h.Report(7, 1, 1), fault.NotFound, "trial 7: there are trials 0 to 2"},
		{h.Report(1, 1, 1), fault.Conflict, "trial 1 is cancelled already"},
		{h.Report(2, 1, 1), fault.Conflict, "trial 2 is paused: resume it first"},
		{h.Pause(2), fault.Conflict, "trial 2 is paused"},
		{h.Pause(1), fault.Conflict, "trial 1 is cancelled already"},
		{h.Resume(0), fault.Conflict, "trial 0 is pending: only a paused one goes on"},
		{h.Resume(1), fault.Conflict, "trial 1 is cancelled already"},
		{h.End(0, tuner.Result{State: tuner.Paused}), fault.Invalid, "trial 0: it cannot end as paused"},
		{h.End(-1, tuner.Result{}), fault.NotFound, "trial -1"},
		{h.End(0, tuner.Result{}), fault.Invalid, "trial 0: it cannot end as pending"},
		{h.End(0, tuner.Result{State: 99}), fault.Invalid, "it cannot end as state(99)"},
		{h.End(0, tuner.Result{State: tuner.Complete}), fault.Invalid, "0 values and 0 limits: the problem has 1 objectives"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) || fault.KindOf(c.err) != c.kind {
			t.Errorf("case %d: %v, want %s", i, c.err, c.want)
		}
	}
	if after := fmt.Sprint(slices.Collect(h.All())); after != before {
		t.Errorf("%s\nbecame\n%s", before, after)
	}
}

// randomly plays a search with a random sampler and random results.
func randomly(t *rapid.T, h *tuner.History, steps int) {
	for range steps {
		pending := h.Pending()
		if len(pending) == 0 || rapid.Bool().Draw(t, "ask") {
			c, err := h.Draw(chance.New(h.Problem().Seed, uint64(h.Len())))
			if errors.Is(err, tuner.ErrExhausted) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Add(c); err != nil {
				t.Fatal(err)
			}
			continue
		}
		trial := rapid.SampledFrom(pending).Draw(t, "trial")
		if h.State(trial) == tuner.Paused {
			if err := h.Resume(trial); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if rapid.IntRange(0, 4).Draw(t, "pause") == 0 {
			if err := h.Pause(trial); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if rapid.Bool().Draw(t, "report") {
			step := 1.0
			if curve := h.Curve(trial); len(curve) > 0 {
				step = curve[len(curve)-1].Step + 1
			}
			if err := h.Report(trial, step, tunertest.Values().Draw(t, "value")); err != nil {
				t.Fatal(err)
			}
			continue
		}
		r := tuner.Result{State: rapid.SampledFrom([]tuner.State{tuner.Complete, tuner.Complete, tuner.Stopped, tuner.Failed, tuner.Infeasible, tuner.Cancelled}).Draw(t, "state")}
		if r.State == tuner.Complete {
			r.Values = rapid.SliceOfN(tunertest.Values(), 2, 2).Draw(t, "values")
		}
		if err := h.End(trial, r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARestoredHistoryIsTheSame(t *testing.T) {
	results := 0
	rapid.Check(t, func(t *rapid.T) {
		s, err := tunertest.Specs().Draw(t, "spec").Compile()
		if err != nil {
			t.Fatal(err)
		}
		p := tuner.Problem{Space: s, Seed: 7, Objectives: []tuner.Objective{{Name: "a"}, {Name: "b", Direction: tuner.Maximize}}}
		h, err := tuner.NewHistory(p)
		if err != nil {
			t.Fatal(err)
		}
		randomly(t, h, 30)
		again, err := tuner.Restore(p, h.All())
		if err != nil {
			t.Fatal(err)
		}
		results += len(h.Ended())
		if a, b := fmt.Sprint(slices.Collect(h.All())), fmt.Sprint(slices.Collect(again.All())); a != b {
			t.Fatalf("%s\nbecame\n%s", a, b)
		}
		for i := range max(h.Events(), again.Events()) {
			a, endA := h.Event(i)
			if b, endB := again.Event(i); a != b || endA != endB {
				t.Fatalf("event %d is of trial %d, and of %d when restored", i, a, b)
			}
		}
		if !slices.Equal(h.Ended(), again.Ended()) || !slices.Equal(h.Pending(), again.Pending()) {
			t.Fatal("another order")
		}
		bestA, _ := h.Best()
		bestB, _ := again.Best()
		a, errA := h.Draw(chance.New(1))
		b, errB := again.Draw(chance.New(1))
		if bestA != bestB || a.Key() != b.Key() || errA != errB {
			t.Fatalf("best %d and %d, next %v and %v", bestA, bestB, a, b)
		}
	})
	if results < 100 {
		t.Fatalf("only %d results", results)
	}
}

func TestAFiniteSpaceIsDrawnWholeWithoutARepetition(t *testing.T) {
	exhausted := 0
	rapid.Check(t, func(t *rapid.T) {
		s, err := tunertest.FiniteSpecs().Draw(t, "spec").Compile()
		if err != nil {
			t.Fatal(err)
		}
		h, err := tuner.NewHistory(tuner.Problem{Space: s, Seed: rapid.Uint64().Draw(t, "seed"), Objectives: []tuner.Objective{{Name: "loss"}}})
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		size, _ := s.Size()
		for n := range size {
			if s.Admits(s.Nth(n)) {
				want++
			}
		}
		for h.Len() <= want {
			c, err := h.Draw(chance.New(3, uint64(h.Len())))
			if errors.Is(err, tuner.ErrExhausted) {
				break
			}
			if err != nil || h.Seen(c) {
				t.Fatalf("%v: %v", c, err)
			}
			if _, err := h.Add(c); err != nil {
				t.Fatal(err)
			}
		}
		if h.Len() != want {
			t.Fatalf("%d of %d were drawn", h.Len(), want)
		}
		exhausted++
	})
	if exhausted == 0 {
		t.Fatal("exercised nothing")
	}
}

func TestConstraintsThatNothingSatisfiesAreSaidToBe(t *testing.T) {
	h := begin(t, tuner.Problem{Space: ints(t, 1e6, "a * b == 7919 * 7927 * 2")})
	if _, err := h.Draw(chance.New(1)); !errors.Is(err, tuner.ErrCrowded) || fault.KindOf(err) != fault.Invalid {
		t.Error(err)
	}
	h = begin(t, tuner.Problem{Space: ints(t, 20, "a + b > 40")})
	if _, err := h.Draw(chance.New(1)); !errors.Is(err, tuner.ErrExhausted) {
		t.Error(err)
	}
	h = begin(t, tuner.Problem{Space: ints(t, 200, "a + b >= 400")}) // one of 40,401
	if c, err := h.Draw(chance.New(1)); err != nil || !reflect.DeepEqual(c, space.Config{200, 200}) {
		t.Error(c, err)
	}
}

// always suggests one configuration.
type always struct{ c space.Config }

func (a always) Suggest(*tuner.History) (space.Config, error) { return a.c, nil }

func TestAskServesTheUsersPointsFirstAndRefusesABadSampler(t *testing.T) {
	h := begin(t, tuner.Problem{Space: ints(t, 9), Initial: []space.Config{{1, 2}, {3, 4}}})
	if _, err := h.Add(space.Config{1, 2}); err != nil { // the user was faster
		t.Fatal(err)
	}
	for want, config := range map[int]space.Config{1: {3, 4}} {
		if got, err := tuner.Ask(always{space.Config{5, 5}}, h); err != nil || got != want || !reflect.DeepEqual(h.Config(got), config) {
			t.Fatal(got, err)
		}
	}
	if got, err := tuner.Ask(always{space.Config{5, 5}}, h); err != nil || got != 2 {
		t.Fatal(got, err)
	}
	if _, err := tuner.Ask(always{space.Config{5, 5}}, h); fault.KindOf(err) != fault.Internal || !strings.Contains(err.Error(), "suggests trial 2 again") {
		t.Error(err)
	}
	if _, err := tuner.Ask(always{space.Config{5, 55}}, h); err == nil {
		t.Error("a suggestion outside the space was taken")
	}
}

func TestTrialsOfEarlierSweepsAreTakenOverByNames(t *testing.T) {
	other, err := space.Spec{Parameters: []space.Parameter{{Name: "b", Type: space.Int, Low: number(0), High: number(99)}}}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	s, err := space.Spec{Parameters: []space.Parameter{
		{Name: "a", Type: space.Categorical, Choices: []expr.Value{expr.Str("x"), expr.Str("y")}, Default: expr.Str("y")},
		{Name: "b", Type: space.Int, Low: number(0), High: number(9)},
	}}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	h := begin(t, tuner.Problem{Space: s, Objectives: []tuner.Objective{{Name: "acc", Direction: tuner.Maximize}}, Earlier: []tuner.Earlier{
		{Space: other, Objectives: []tuner.Objective{{Name: "loss"}}, Trials: []tuner.Trial{{Config: space.Config{1}, State: tuner.Complete, Values: []float64{1}}}},
		{Space: other, Objectives: []tuner.Objective{{Name: "loss"}, {Name: "acc"}}, Trials: []tuner.Trial{
			{Config: space.Config{3}, State: tuner.Complete, Values: []float64{1, 0.5}},
			{Config: space.Config{33}, State: tuner.Complete, Values: []float64{1, 0.6}},
			{Config: space.Config{4}, State: tuner.Failed},
		}},
	}})
	if got, want := h.Prior(), []tuner.Prior{{Sweep: 1, Config: space.Config{1, 3}, Losses: []float64{-0.5}}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
