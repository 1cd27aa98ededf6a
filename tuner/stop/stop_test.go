package stop_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/tuner/stop"
	"github.com/clary-ml/clary/tuner/tunertest"
)

// search is a history over one float, with curves up to step 27.
func search(t testing.TB, direction tuner.Direction) *tuner.History {
	t.Helper()
	low, high := 0.0, 1e6
	s, err := space.Spec{Parameters: []space.Parameter{{Name: "x", Type: space.Float, Low: &low, High: &high}}}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	h, err := tuner.NewHistory(tuner.Problem{
		Space: s, Objectives: []tuner.Objective{{Name: "score", Direction: direction}}, Fidelity: tuner.Fidelity{Name: "epoch", Max: 27},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

type fataler interface{ Fatal(...any) }

func must(t fataler, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// begin adds a trial that has reported these values, at steps 1, 2, ...
func begin(t fataler, h *tuner.History, values ...float64) int {
	number, err := h.Add(space.Config{float64(h.Len())})
	must(t, err)
	for i, v := range values {
		must(t, h.Report(number, float64(i+1), v))
	}
	return number
}

func done(t fataler, h *tuner.History, value float64, curve ...float64) int {
	number := begin(t, h, curve...)
	must(t, h.End(number, tuner.Result{State: tuner.Complete, Values: []float64{value}}))
	return number
}

func asha(t fataler, c stop.Halving) stop.Stopper {
	s, err := stop.ASHA(c, tuner.Fidelity{Max: 27})
	must(t, err)
	return s
}

func promoting(t fataler, c stop.Halving) stop.Promoter {
	s, err := stop.PromotingASHA(c, tuner.Fidelity{Max: 27})
	must(t, err)
	return s
}

func TestASHAKeepsTheBestThirdOfEachRung(t *testing.T) {
	for _, direction := range []tuner.Direction{tuner.Minimize, tuner.Maximize} {
		h, s := search(t, direction), asha(t, stop.Halving{})
		sign := 1.0
		if direction == tuner.Maximize {
			sign = -1
		}
		// Trial by trial as they come to the first rung; the n-th stays if fewer than
		// floor((n-1)/3)+1 before it are better.
		for i, c := range []struct {
			loss float64
			want stop.Verdict
		}{{5, stop.Continue}, {6, stop.Stop}, {4, stop.Continue}, {4.5, stop.Continue}, {4.7, stop.Stop}, {4, stop.Continue}, {9, stop.Stop}, {4.4, stop.Continue}} {
			number := begin(t, h, sign*c.loss)
			if got := s.Judge(h, number); got != c.want {
				t.Errorf("%s: trial %d with %v: %s, want %s", direction, i, c.loss, got, c.want)
			}
		}
		// Between rungs nothing is judged, at the next one only among those that got there.
		must(t, h.Report(0, 2, sign*100))
		if got := s.Judge(h, 0); got != stop.Continue {
			t.Errorf("%s: between rungs: %s", direction, got)
		}
		must(t, h.Report(0, 3, sign*100))
		if got := s.Judge(h, 0); got != stop.Continue {
			t.Errorf("%s: the first at its rung: %s", direction, got)
		}
		must(t, h.Report(2, 3, sign*101))
		if got := s.Judge(h, 2); got != stop.Stop {
			t.Errorf("%s: the worse of two: %s", direction, got)
		}
	}
}

func TestAReportThatSkipsRungsIsJudgedAtTheHighest(t *testing.T) {
	h, s := search(t, tuner.Minimize), asha(t, stop.Halving{})
	for i, loss := range []float64{1, 2} {
		number := begin(t, h)
		must(t, h.Report(number, 10, loss))
		if got, want := s.Judge(h, number), []stop.Verdict{stop.Continue, stop.Stop}[i]; got != want {
			t.Errorf("trial %d: %s, want %s", number, got, want)
		}
	}
	silent := begin(t, h)
	must(t, h.Report(silent, 1, math.NaN()))
	if got := s.Judge(h, silent); got != stop.Continue {
		t.Error("a trial without a value was judged:", got)
	}
}

func TestPromotionPausesAtRungsAndLetsTheBestGoOn(t *testing.T) {
	h, s := search(t, tuner.Minimize), promoting(t, stop.Halving{})
	report := func(number int, step, loss float64) {
		t.Helper()
		must(t, h.Report(number, step, loss))
		if got := s.Judge(h, number); got != stop.Pause {
			t.Errorf("trial %d at rung %v: %s", number, step, got)
		}
		must(t, h.Pause(number))
	}
	promoted := func() int {
		if number, ok := s.Promote(h); ok {
			must(t, h.Resume(number))
			return number
		}
		return -1
	}
	for i := range 3 {
		if got := promoted(); got >= 0 {
			t.Errorf("trial %d was promoted of %d", got, i)
		}
		report(begin(t, h), 1, float64(10-i))
	}
	if got := promoted(); got != 2 { // the best of three
		t.Errorf("promoted %d", got)
	}
	if got := promoted(); got >= 0 { // once only
		t.Errorf("promoted %d too", got)
	}
	for i := range 6 {
		report(begin(t, h), 1, float64(20+i))
	}
	if a, b := promoted(), promoted(); a != 1 || b != 0 { // of nine, three
		t.Errorf("promoted %d and %d", a, b)
	}
	report(2, 3, 5)
	report(1, 3, 4)
	must(t, h.End(1, tuner.Result{State: tuner.Failed}))
	report(0, 3, 3.5)
	if got := promoted(); got != 0 { // the highest rung first, and not the one that failed
		t.Errorf("promoted %d", got)
	}
	must(t, h.Report(0, 2+3, 1))
	if got := s.Judge(h, 0); got != stop.Continue {
		t.Errorf("between rungs: %s", got)
	}
}

// play lets workers run trials at random for a while and calls each after every verdict.
func play(t *rapid.T, h *tuner.History, s stop.Stopper, each func(number int, verdict stop.Verdict)) {
	running := []int{}
	promoter, promotes := s.(stop.Promoter)
	for range rapid.IntRange(1, 120).Draw(t, "steps") {
		if len(running) == 0 || len(running) < 4 && rapid.Bool().Draw(t, "start") {
			number, ok := 0, false
			if promotes {
				number, ok = promoter.Promote(h)
			}
			if ok {
				must(t, h.Resume(number))
			} else {
				number = begin(t, h)
			}
			running = append(running, number)
			continue
		}
		at := rapid.IntRange(0, len(running)-1).Draw(t, "worker")
		number := running[at]
		leave := func() { running = slices.Delete(running, at, at+1) }
		if rapid.IntRange(0, 15).Draw(t, "fails") == 0 {
			must(t, h.End(number, tuner.Result{State: tuner.Failed}))
			leave()
			continue
		}
		step := 1.0
		if curve := h.Curve(number); len(curve) > 0 {
			step += curve[len(curve)-1].Step
		}
		value := tunertest.Values().Draw(t, "value")
		wanted := s.Wants(h, number, step)
		must(t, h.Report(number, step, value))
		if verdict := s.Judge(h, number); !wanted && !math.IsNaN(value) && !math.IsInf(value, 0) && verdict != stop.Continue {
			t.Fatalf("step %v of trial %d was not wanted, and is judged: %s", step, number, verdict)
		}
		if step >= 27 {
			must(t, h.End(number, tuner.Result{State: tuner.Complete, Values: []float64{value}}))
			leave()
			continue
		}
		if math.IsNaN(value) || math.IsInf(value, 0) {
			continue
		}
		verdict := s.Judge(h, number)
		each(number, verdict)
		switch verdict {
		case stop.Stop:
			must(t, h.End(number, tuner.Result{State: tuner.Stopped}))
			leave()
		case stop.Pause:
			must(t, h.Pause(number))
			leave()
		}
	}
}

func TestVerdictsAreAFunctionOfTheHistory(t *testing.T) {
	judged := 0
	rapid.Check(t, func(t *rapid.T) {
		h, err := tuner.NewHistory(search(quiet{}, tuner.Minimize).Problem())
		must(t, err)
		config := stop.Halving{Brackets: rapid.IntRange(1, 3).Draw(t, "brackets")}
		makers := []func() stop.Stopper{
			func() stop.Stopper { return asha(t, config) },
			func() stop.Stopper { return promoting(t, config) },
			func() stop.Stopper { return stop.Median{Trials: 1} },
		}
		fresh := rapid.SampledFrom(makers).Draw(t, "stopper")
		s := fresh()
		play(t, h, s, func(number int, verdict stop.Verdict) {
			restored, err := tuner.Restore(h.Problem(), h.All())
			must(t, err)
			other := fresh()
			if got := other.Judge(restored, number); got != verdict {
				t.Fatalf("trial %d: %s, and %s after a restart", number, verdict, got)
			}
			if p, ok := s.(stop.Promoter); ok {
				a, okA := p.Promote(h)
				b, okB := other.(stop.Promoter).Promote(restored)
				if a != b || okA != okB {
					t.Fatalf("promotes %d (%v), and %d (%v) after a restart", a, okA, b, okB)
				}
			}
			judged++
		})
	})
	if judged < 300 {
		t.Fatalf("judged %d", judged)
	}
}

// quiet lets search be used where there is no testing.T: it cannot fail.
type quiet struct{ testing.TB }

func (quiet) Helper() {}

func TestWhatIsPromotedIsAmongTheBestThirdOfItsRung(t *testing.T) {
	promotions := 0
	rapid.Check(t, func(t *rapid.T) {
		h := search(quiet{}, tuner.Minimize)
		s := promoting(t, stop.Halving{})
		play(t, h, s, func(int, stop.Verdict) {
			number, ok := s.Promote(h)
			if !ok {
				return
			}
			promotions++
			at := func(trial int, step float64) (float64, bool) {
				for _, p := range h.Curve(trial) {
					if p.Step >= step {
						return p.Value, true
					}
				}
				return 0, false
			}
			step := 1.0
			for _, next := range []float64{3, 9} {
				if _, reached := at(number, next); reached {
					step = next
				}
			}
			own, _ := at(number, step)
			before, all := 0, 0
			for other := range h.Len() {
				if v, reached := at(other, step); reached {
					all++
					if v < own || v == own && other < number {
						before++
					}
				}
			}
			if h.State(number) != tuner.Paused || before >= all/3 {
				t.Fatalf("trial %d is %s, and %d of %d at rung %v come before it", number, h.State(number), before, all, step)
			}
		})
	})
	if promotions < 50 {
		t.Fatalf("only %d promotions", promotions)
	}
}

func TestHyperbandsBracketsBeginLaterAndTakeTheirShare(t *testing.T) {
	h, s := search(t, tuner.Minimize), promoting(t, stop.Halving{Brackets: 3})
	counts := map[float64]int{}
	for range 400 {
		number := begin(t, h)
		for step := 1.0; step <= 27; step++ {
			must(t, h.Report(number, step, 1))
			if s.Judge(h, number) == stop.Pause {
				counts[step]++
				break
			}
		}
	}
	// Sizes 4/4*27, 4/3*9 and 4/2*3 of 45.
	for step, want := range map[float64]float64{1: 240, 3: 106.7, 9: 53.3} {
		if got := float64(counts[step]); math.Abs(got-want) > 40 {
			t.Errorf("%v of 400 trials begin with rung %v, want about %v", got, step, want)
		}
	}
}

func TestHalvingThatMakesNoSenseIsRefused(t *testing.T) {
	for _, c := range []struct {
		c    stop.Halving
		max  float64
		want string
	}{
		{stop.Halving{}, 0, "max: 0: give the step at which a trial is complete"},
		{stop.Halving{Min: 27}, 27, "min: 27: the first rung must lie below max 27"},
		{stop.Halving{Min: -1, Eta: 1}, 27, "min: -1: give a step above 0\neta: 1: give a number above 1, such as 3"},
		{stop.Halving{Min: math.NaN(), Eta: math.NaN()}, 27, "min: NaN: give a step above 0\neta: NaN"},
		{stop.Halving{Eta: 1.0001}, 27, "eta: 1.0001 makes more than 64 rungs from 1 to 27"},
		{stop.Halving{Brackets: 4}, 27, "brackets: 4: there are 3 rungs below 27: give 1 to 3"},
	} {
		if _, err := stop.ASHA(c.c, tuner.Fidelity{Max: c.max}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.c, err, c.want)
		}
	}
}

func TestStoppersAreMadeByName(t *testing.T) {
	f := tuner.Fidelity{Max: 81}
	for name, want := range map[string]string{
		"": "<nil>", "none": "<nil>", "median": "stop.Median", "asha": "*stop.halving", "asha_promotion": "stop.promoting", "hyperband": "*stop.halving",
	} {
		s, err := stop.Spec{Name: name}.Stopper(f)
		if got := fmt.Sprintf("%T", s); err != nil || got != want {
			t.Errorf("%q makes %s (%v), want %s", name, got, err, want)
		}
	}
	for want, spec := range map[string]stop.Spec{
		`name: there is no stopper "magic": there are none, asha, asha_promotion, hyperband, median`: {Name: "magic"},
		`eta: the stopper "median" has none: leave it out`:                                           {Name: "median", Eta: 3},
		"trials: the stopper \"asha\" has none: leave it out\nwarmup: the stopper":                   {Name: "asha", Trials: 3, Warmup: 2},
		"eta: 0.5: give a number above 1, such as 3":                                                 {Name: "hyperband", Eta: 0.5},
	} {
		if got := spec.Validate(f).Error(); !strings.Contains(got, want) {
			t.Errorf("%+v: %s, want %s", spec, got, want)
		}
	}
}

func TestHalvingWantsTheFirstStepOfEachRung(t *testing.T) {
	h, s := search(t, tuner.Minimize), asha(t, stop.Halving{Min: 2})
	number := begin(t, h)
	var wanted []float64
	for step := 1.0; step < 27; step++ {
		if s.Wants(h, number, step) {
			wanted = append(wanted, step)
			must(t, h.Report(number, step, 1))
		}
	}
	if !slices.Equal(wanted, []float64{2, 6, 18}) {
		t.Errorf("wants steps %v", wanted)
	}
}

func TestTheMedianRuleStopsWhatIsWorseThanHalf(t *testing.T) {
	h, s := search(t, tuner.Minimize), stop.Median{Trials: 3, Warmup: 2}
	done(t, h, 1, 9, 5, 1) // averages by step 2: 7, 6, 5
	done(t, h, 2, 8, 4, 2)
	for i, c := range []struct {
		curve []float64
		want  stop.Verdict
	}{
		{[]float64{100, 100}, stop.Continue}, // two are too few
		{[]float64{100}, stop.Continue},      // too early
		{[]float64{100, 100}, stop.Stop},
		{[]float64{6.1, 100}, stop.Stop},
		{[]float64{6, 100}, stop.Continue}, // the best so far counts
		{[]float64{100, 5.5}, stop.Continue},
		{[]float64{9, 9, 9, 9}, stop.Continue}, // nobody got so far
	} {
		if i == 1 {
			done(t, h, 3, 7, 3, 3)
		}
		number := begin(t, h, c.curve...)
		if got := s.Judge(h, number); got != c.want {
			t.Errorf("case %d: %s, want %s", i, got, c.want)
		}
		must(t, h.End(number, tuner.Result{State: tuner.Stopped}))
	}
	if p := (stop.Median{Trials: -1, Warmup: math.NaN()}).Validate(); len(p) != 2 {
		t.Error(p)
	}
}

func TestASearchEndsAtItsTarget(t *testing.T) {
	h, s := search(t, tuner.Maximize), stop.Target{Value: 0.9}
	for _, value := range []float64{0.2, math.NaN(), 0.899} {
		done(t, h, value)
	}
	begin(t, h, 0.95) // only on its way
	if got := s.Over(h); got != "" {
		t.Error(got)
	}
	done(t, h, 0.9)
	if got := s.Over(h); got != "trial 4 reached score 0.9, the target is 0.9" {
		t.Error(got)
	}
}

func TestPatienceEndsWithTrialsThatFindNothing(t *testing.T) {
	h, s := search(t, tuner.Minimize), stop.Patience{Trials: 3}
	for range 5 {
		must(t, h.End(begin(t, h), tuner.Result{State: tuner.Failed}))
	}
	if got := s.Over(h); got != "" {
		t.Error("nothing is complete:", got)
	}
	done(t, h, 1)
	done(t, h, 1)
	must(t, h.End(begin(t, h), tuner.Result{State: tuner.Stopped}))
	must(t, h.End(begin(t, h), tuner.Result{State: tuner.Cancelled}))
	if got := s.Over(h); got != "" {
		t.Error("two:", got)
	}
	done(t, h, 2)
	if got := s.Over(h); got != "no trial was better than trial 5 in the last 3" {
		t.Error(got)
	}
	done(t, h, 0.5)
	if got := s.Over(h); got != "" {
		t.Error("a better one:", got)
	}
	if p := (stop.Patience{}).Validate(); len(p) != 1 {
		t.Error(p)
	}
}

// Losses like those of a sampler that closes in on 0, and of one that draws at random.
func TestConvergenceTellsClosingInFromSearching(t *testing.T) {
	ends := func(loss func(i int, u float64) float64) int {
		h, s := search(t, tuner.Minimize), stop.Convergence{}
		r := chance.New(4)
		for i := range 600 {
			done(t, h, loss(i, r.Float64()))
			if reason := s.Over(h); reason != "" {
				if !strings.Contains(reason, "expected to gain") {
					t.Error(reason)
				}
				return i + 1
			}
		}
		return 600
	}
	closing := ends(func(i int, u float64) float64 { return 1 + math.Exp(-float64(i)/15) + 0.1*u*math.Exp(-float64(i)/15) })
	searching := ends(func(_ int, u float64) float64 { return math.Log(u) }) // no end in sight: the best of n goes as -log n
	constant := ends(func(int, float64) float64 { return 3 })
	if closing < 60 || closing > 120 || searching < 100 || constant != 40 {
		t.Errorf("ends after %d trials when closing in, %d when searching, %d when nothing changes", closing, searching, constant)
	}
	same := ends(func(i int, u float64) float64 {
		return 1e6 * (math.Exp(-float64(i)/15) + 0.1*u*math.Exp(-float64(i)/15) - 7)
	})
	if same != closing {
		t.Errorf("ends after %d trials, and scaled after %d", closing, same)
	}
	if p := (stop.Convergence{Horizon: -1, Share: 2, Trials: 3}).Validate(); len(p) != 3 {
		t.Error(p)
	}
}

func BenchmarkPromote(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("trials=%d", n), func(b *testing.B) {
			h, s := search(b, tuner.Minimize), promoting(b, stop.Halving{})
			r := chance.New(1)
			arrive := func() {
				number := begin(b, h, r.Float64())
				s.Judge(h, number)
				must(b, h.Pause(number))
			}
			for range n {
				arrive()
			}
			for b.Loop() {
				arrive()
				if number, ok := s.Promote(h); ok {
					must(b, h.Resume(number))
				}
			}
		})
	}
}
