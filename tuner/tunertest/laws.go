package tunertest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
)

// Suite says what a sampler promises beyond the laws that all keep.
type Suite struct {
	Make tuner.Maker
	// Learns: it finds better trials than random ones.
	Learns bool
	// OneSeed: the seed decides at most the order, so two seeds may agree.
	OneSeed bool
}

// Run tries a sampler on drawn problems and histories.
func Run(t *testing.T, s Suite) {
	t.Run("suggests new points of the space whatever was told", s.lawfulSuggestions)
	t.Run("is a function of the history", s.function)
	t.Run("walks through a finite space once and says when it is exhausted", s.exhausts)
	t.Run("does not see the order of parameters", s.orderOfParameters)
	t.Run("sees only how losses compare after scaling", s.scaling)
	t.Run("maximising is minimising the negative", s.maximising)
	t.Run("goes on when all that ended has failed", s.allFailed)
	t.Run("does not repeat what is pending", s.manyPending)
	if !s.OneSeed {
		t.Run("draws something else with another seed", s.seeds)
	}
	if s.Learns {
		t.Run("is better than random", s.learns)
		t.Run("is better than random within limits", s.learnsLimits)
		t.Run("is better than random along conditions", s.learnsConditions)
		t.Run("is better than random for two objectives", s.learnsFront)
		t.Run("begins better with an earlier sweep", s.learnsEarlier)
	}
}

// play is a search under way: a history, and a script of what happens.
type play struct {
	h *tuner.History
	s tuner.Sampler
}

// start makes a play, or ok = false if the sampler refuses the problem, which must be Invalid.
func (s Suite) start(t *rapid.T, p tuner.Problem) (play, bool) {
	sampler, err := s.Make(p)
	if err != nil {
		if !fault.Is(err, fault.Invalid) {
			t.Fatalf("refuses the problem with %v, which is not of the kind Invalid", err)
		}
		return play{}, false
	}
	h, err := tuner.NewHistory(p)
	if err != nil {
		t.Fatal(err)
	}
	return play{h, sampler}, true
}

func drawProblem(t *rapid.T, specs *rapid.Generator[space.Spec]) tuner.Problem {
	compiled, err := specs.Draw(t, "spec").Compile()
	if err != nil {
		t.Fatal(err)
	}
	p := tuner.Problem{Space: compiled, Seed: rapid.Uint64().Draw(t, "seed"), Objectives: []tuner.Objective{{Name: "loss"}}}
	if rapid.Bool().Draw(t, "curves") {
		p.Fidelity = tuner.Fidelity{Name: "epoch", Max: 9}
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "more objectives") {
		p.Objectives = append(p.Objectives, tuner.Objective{Name: fmt.Sprint("o", len(p.Objectives)), Direction: tuner.Maximize})
	}
	if rapid.IntRange(0, 3).Draw(t, "limited") == 0 {
		most := 1.0
		p.Limits = []tuner.Limit{{Name: "memory", Max: &most}}
	}
	return p
}

// ended are how a trial may end; most have values.
var ended = []tuner.State{tuner.Complete, tuner.Complete, tuner.Complete, tuner.Complete, tuner.Stopped, tuner.Failed, tuner.Infeasible, tuner.Cancelled}

// step lets one thing happen: an ask, or news of a pending trial. done means exhausted.
func (p play) step(t *rapid.T, values *rapid.Generator[float64]) (done bool) {
	pending := p.h.Pending()
	if len(pending) == 0 || rapid.IntRange(0, 2).Draw(t, "ask") == 0 {
		_, err := tuner.Ask(p.s, p.h)
		if err != nil && !errors.Is(err, tuner.ErrExhausted) {
			t.Fatalf("trial %d: %v", p.h.Len(), err)
		}
		return err != nil && len(pending) == 0
	}
	trial := rapid.SampledFrom(pending).Draw(t, "trial")
	if p.h.Problem().Fidelity.Max > 0 && rapid.Bool().Draw(t, "report") {
		at := 1.0
		if curve := p.h.Curve(trial); len(curve) > 0 {
			at += curve[len(curve)-1].Step
		}
		must(t, p.h.Report(trial, at, values.Draw(t, "value")))
		return false
	}
	r := tuner.Result{State: rapid.SampledFrom(ended).Draw(t, "state")}
	if r.State == tuner.Complete {
		for range p.h.Problem().Objectives {
			r.Values = append(r.Values, values.Draw(t, "value"))
		}
		for range p.h.Problem().Limits {
			r.Limits = append(r.Limits, values.Draw(t, "limit"))
		}
	}
	must(t, p.h.End(trial, r))
	return false
}

func must(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// counting fails a test that has exercised too little of what it is about.
func counting(t *testing.T, least int, run func(count func(int))) {
	t.Helper()
	total := 0
	run(func(n int) { total += n })
	if total < least {
		t.Fatalf("exercised %d times, want %d or more", total, least)
	}
}

func (s Suite) lawfulSuggestions(t *testing.T) {
	counting(t, 300, func(count func(int)) {
		rapid.Check(t, func(t *rapid.T) {
			p, ok := s.start(t, drawProblem(t, Specs()))
			for steps := rapid.IntRange(1, 60).Draw(t, "steps"); ok && steps > 0 && !p.step(t, Values()); steps-- {
			}
			if ok {
				count(p.h.Len()) // Ask and Add have checked each
			}
		})
	})
}

func (s Suite) function(t *testing.T) {
	counting(t, 40, func(count func(int)) {
		rapid.Check(t, func(t *rapid.T) {
			problem := drawProblem(t, Specs())
			p, ok := s.start(t, problem)
			if !ok {
				return
			}
			for range rapid.IntRange(0, 40).Draw(t, "steps") {
				p.step(t, Values())
			}
			restored, err := tuner.Restore(problem, p.h.All())
			must(t, err)
			other, err := s.Make(problem)
			must(t, err)
			a, errA := p.s.Suggest(p.h)
			again, _ := p.s.Suggest(p.h)
			b, errB := other.Suggest(restored)
			switched, _ := p.s.Suggest(restored) // a sampler that is asked about another history
			if errA != errB || a.Key() != b.Key() || again.Key() != a.Key() || switched.Key() != a.Key() {
				t.Fatalf("the sampler that lived through it suggests %v (%v), then %v; one that was restored %v (%v); asked about the restored history %v", a, errA, again, b, errB, switched)
			}
			count(1)
		})
	})
}

func (s Suite) exhausts(t *testing.T) {
	counting(t, 20, func(count func(int)) {
		rapid.Check(t, func(t *rapid.T) {
			problem := drawProblem(t, FiniteSpecs())
			size, _ := problem.Space.Size()
			want := 0
			for n := range size {
				if problem.Space.Admits(problem.Space.Nth(n)) {
					want++
				}
			}
			p, ok := s.start(t, problem)
			if !ok || want > 120 {
				return
			}
			for range want {
				number, err := tuner.Ask(p.s, p.h)
				if err != nil {
					t.Fatalf("after %d of %d: %v", p.h.Len(), want, err)
				}
				must(t, p.h.End(number, p.score(number)))
			}
			if _, err := tuner.Ask(p.s, p.h); !errors.Is(err, tuner.ErrExhausted) {
				t.Fatalf("all %d were tried: %v", want, err)
			}
			count(1)
		})
	})
}

// score is a smooth function of the coordinates.
func (p play) score(number int) tuner.Result {
	problem := p.h.Problem()
	x, active := make([]float64, len(problem.Space.Dims())), make([]bool, len(problem.Space.Dims()))
	problem.Space.Encode(p.h.Config(number), x, active)
	loss := 0.0
	for i, v := range x {
		if active[i] {
			loss += (v - 0.3) * (v - 0.3)
		}
	}
	r := tuner.Result{State: tuner.Complete}
	for i := range problem.Objectives {
		r.Values = append(r.Values, loss+float64(i))
	}
	for range problem.Limits {
		r.Limits = append(r.Limits, loss)
	}
	return r
}

// twins plays the same search on two problems, each result told to both, the second one
// changed by told, and compares the suggestions.
func (s Suite) twins(t *testing.T, count func(int), change func(*rapid.T, tuner.Problem) (tuner.Problem, func(float64) float64)) {
	rapid.Check(t, func(t *rapid.T) {
		problem := drawProblem(t, Specs())
		other, told := change(t, problem)
		p, ok := s.start(t, problem)
		if !ok {
			return
		}
		q, _ := s.start(t, other)
		for range rapid.IntRange(1, 30).Draw(t, "trials") {
			a, errA := tuner.Ask(p.s, p.h)
			b, errB := tuner.Ask(q.s, q.h)
			if !errors.Is(errA, errB) {
				t.Fatal(errA, errB)
			}
			if errA != nil {
				return
			}
			if x, y := p.h.Config(a), q.h.Config(b); x.Key() != y.Key() {
				t.Fatalf("trial %d is %v, and %v for its twin", a, x, y)
			}
			count(1)
			if rapid.IntRange(0, 4).Draw(t, "pending") == 0 {
				continue
			}
			r := p.score(a)
			must(t, p.h.End(a, r))
			r.Values = slices.Clone(r.Values)
			for i := range r.Values {
				r.Values[i] = told(r.Values[i])
			}
			must(t, q.h.End(b, r))
		}
	})
}

func (s Suite) orderOfParameters(t *testing.T) {
	counting(t, 300, func(count func(int)) {
		s.twins(t, count, func(t *rapid.T, p tuner.Problem) (tuner.Problem, func(float64) float64) {
			spec := p.Space.Spec()
			spec.Parameters = rapid.Permutation(spec.Parameters).Draw(t, "order")
			compiled, err := spec.Compile()
			must(t, err)
			p.Space = compiled
			return p, func(v float64) float64 { return v }
		})
	})
}

// scaling is by powers of two, which lose no digits.
func (s Suite) scaling(t *testing.T) {
	counting(t, 300, func(count func(int)) {
		s.twins(t, count, func(t *rapid.T, p tuner.Problem) (tuner.Problem, func(float64) float64) {
			scale := math.Exp2(float64(rapid.IntRange(-30, 30).Draw(t, "exponent")))
			return p, func(v float64) float64 { return v * scale }
		})
	})
}

func (s Suite) maximising(t *testing.T) {
	counting(t, 300, func(count func(int)) {
		s.twins(t, count, func(_ *rapid.T, p tuner.Problem) (tuner.Problem, func(float64) float64) {
			p.Objectives = slices.Clone(p.Objectives)
			for i, o := range p.Objectives {
				p.Objectives[i].Direction = tuner.Maximize
				if o.Direction == tuner.Maximize {
					p.Objectives[i].Direction = tuner.Minimize
				}
			}
			return p, func(v float64) float64 { return -v }
		})
	})
}

func (s Suite) allFailed(t *testing.T) {
	counting(t, 300, func(count func(int)) {
		rapid.Check(t, func(t *rapid.T) {
			p, ok := s.start(t, drawProblem(t, Specs()))
			state := rapid.SampledFrom([]tuner.State{tuner.Failed, tuner.Infeasible, tuner.Cancelled, tuner.Stopped}).Draw(t, "state")
			for ok && p.h.Len() < 30 {
				number, err := tuner.Ask(p.s, p.h)
				if errors.Is(err, tuner.ErrExhausted) {
					return
				}
				must(t, err)
				must(t, p.h.End(number, tuner.Result{State: state}))
				count(1)
			}
		})
	})
}

func (s Suite) manyPending(t *testing.T) {
	counting(t, 1000, func(count func(int)) {
		rapid.Check(t, func(t *rapid.T) {
			p, ok := s.start(t, drawProblem(t, Specs()))
			done := rapid.IntRange(0, 20).Draw(t, "complete")
			for ok && p.h.Len() < done+64 {
				number, err := tuner.Ask(p.s, p.h)
				if errors.Is(err, tuner.ErrExhausted) {
					return
				}
				must(t, err)
				if number < done {
					must(t, p.h.End(number, p.score(number)))
				}
				count(1)
			}
		})
	})
}

// square is a problem of d continuous parameters.
func square(t *testing.T, d int, seed uint64) tuner.Problem {
	t.Helper()
	var spec space.Spec
	for i := range d {
		low, high := -5.0, 5.0
		spec.Parameters = append(spec.Parameters, space.Parameter{Name: fmt.Sprint("x", i), Type: space.Float, Low: &low, High: &high})
	}
	compiled, err := spec.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return tuner.Problem{Space: compiled, Seed: seed, Objectives: []tuner.Objective{{Name: "loss"}}, Budget: 100}
}

func (s Suite) seeds(t *testing.T) {
	seen := make(map[string]uint64)
	for seed := range uint64(20) {
		p := square(t, 2, seed)
		sampler, err := s.Make(p)
		if err != nil {
			t.Fatal(err)
		}
		h, err := tuner.NewHistory(p)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // the first may be the middle
			number, err := tuner.Ask(sampler, h)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.End(number, play{h, sampler}.score(number)); err != nil {
				t.Fatal(err)
			}
		}
		key := h.Config(2).Key()
		if other, twice := seen[key]; twice {
			t.Errorf("seeds %d and %d go the same way", seed, other)
		}
		seen[key] = seed
	}
}
