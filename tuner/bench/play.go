package bench

import (
	"errors"
	"math"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// Task is something to search, in as many instances as there are seeds.
type Task interface {
	Name() string
	Instance(seed uint64) Instance
}

// Instance is one thing to search whose answer is known. It never changes.
type Instance interface {
	// Problem is the space with its objective.
	Problem() tuner.Problem
	// Observe is what a trial measures, noise included; r draws it.
	Observe(c space.Config, r *chance.Rand) float64
	// Regret is how far the configuration really is from the best.
	Regret(c space.Config) float64
}

// Play is one search.
type Play struct {
	Make tuner.Maker
	// Trials are to complete; Workers run at once, 0 means 1. Several take exponentially
	// distributed times of mean 1, and are asked for again as soon as they end.
	Trials, Workers int
	Seed            uint64
	// Repeats lets the sampler suggest what was tried before, to be measured again, which
	// tuner.Ask refuses. Clary's samplers have no use for it, those of others may.
	Repeats bool
}

// MaxTrials bounds a Play.
const MaxTrials = 1_000_000

// Run plays the search. Element i of curve is the regret of the best trial observed after
// i+1 completed ones: the best by what was measured, judged by what it is. A space that is
// exhausted before ends with its last element repeated.
func (p Play) Run(task Instance) (curve []float64, err error) {
	if p.Trials < 1 || p.Trials > MaxTrials {
		return nil, fault.New(fault.Invalid, "%d trials: give 1 to %d", p.Trials, MaxTrials)
	}
	problem := task.Problem()
	problem.Seed, problem.Budget, problem.Workers = p.Seed, p.Trials, max(p.Workers, 1)
	sampler, err := p.Make(problem)
	if err != nil {
		return nil, err
	}
	h, err := tuner.NewHistory(problem)
	if err != nil {
		return nil, err
	}
	noise := chance.New(p.Seed, 'n', 'o', 'i', 's', 'e')
	run := running{times: chance.New(p.Seed, 't', 'i', 'm', 'e')}
	regret := math.Inf(1)
	for best := -1; len(curve) < p.Trials; {
		for len(run.until) < problem.Workers && h.Len() < p.Trials {
			trial, err := p.ask(sampler, h)
			if errors.Is(err, tuner.ErrExhausted) {
				break
			}
			if err != nil {
				return nil, err
			}
			run.start(trial)
		}
		if len(run.until) == 0 {
			break
		}
		trial := run.finish()
		value := task.Observe(h.Config(trial), noise)
		if err := h.End(trial, tuner.Result{State: tuner.Complete, Values: []float64{value}}); err != nil {
			return nil, err
		}
		if now, ok := h.Best(); ok && now != best {
			best, regret = now, task.Regret(h.Config(now))
		}
		curve = append(curve, regret)
	}
	for len(curve) < p.Trials {
		curve = append(curve, regret)
	}
	return curve, nil
}

func (p Play) ask(s tuner.Sampler, h *tuner.History) (trial int, err error) {
	if !p.Repeats {
		return tuner.Ask(s, h)
	}
	c, err := s.Suggest(h)
	if err != nil {
		return 0, err
	}
	return h.Add(c)
}

// running are the trials under way with the instants of their ends.
type running struct {
	now    float64
	trials []int
	until  []float64
	times  *chance.Rand
}

func (r *running) start(trial int) {
	r.trials = append(r.trials, trial)
	r.until = append(r.until, r.now+r.times.ExpFloat64())
}

// finish goes to the next end.
func (r *running) finish() (trial int) {
	first := 0
	for i, at := range r.until {
		if at < r.until[first] {
			first = i
		}
	}
	last := len(r.trials) - 1
	trial, r.now = r.trials[first], r.until[first]
	r.trials[first], r.until[first] = r.trials[last], r.until[last]
	r.trials, r.until = r.trials[:last], r.until[:last]
	return trial
}
