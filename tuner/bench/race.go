package bench

import (
	"errors"
	"math"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/tuner/stop"
)

// Curved is an Instance whose trials report on their way, at the steps 1 to the problem's
// Fidelity.Max.
type Curved interface {
	Instance
	At(c space.Config, step int, r *chance.Rand) float64
}

// Race is a search over curves, in which a stopper may end trials before their last step.
type Race struct {
	Make tuner.Maker
	// Stopper makes the stopper; nil lets every trial run to its end.
	Stopper func(tuner.Fidelity) (stop.Stopper, error)
	// Time is how long the race is, in units of the mean time of a whole trial; each step
	// takes an exponentially distributed part of it. Workers run at once; 0 means 1.
	Time    float64
	Workers int
	Seed    uint64
}

// Fall is an instant at which the regret changed.
type Fall struct{ At, Regret float64 }

// Run plays the race. Element i of curve is the regret at the time i+1 of the trial whose
// report was the best by then, NaN as long as there is none; falls say it to the instant.
func (c Race) Run(task Curved) (curve []float64, falls []Fall, err error) {
	if !(c.Time >= 1 && c.Time <= MaxTrials) {
		return nil, nil, fault.New(fault.Invalid, "time %v: give 1 to %d", c.Time, MaxTrials)
	}
	problem := task.Problem()
	problem.Seed, problem.Workers = c.Seed, max(c.Workers, 1)
	r := race{task: task, steps: int(problem.Fidelity.Max), at: make(map[int]int), best: math.Inf(1), regret: math.NaN()}
	if r.sampler, err = c.Make(problem); err != nil {
		return nil, nil, err
	}
	if r.h, err = tuner.NewHistory(problem); err != nil {
		return nil, nil, err
	}
	if c.Stopper != nil {
		if r.stopper, err = c.Stopper(problem.Fidelity); err != nil {
			return nil, nil, err
		}
	}
	r.noise, r.running.times = chance.New(c.Seed, 'n', 'o', 'i', 's', 'e'), chance.New(c.Seed, 't', 'i', 'm', 'e')
	for {
		for len(r.running.until) < problem.Workers {
			if started, err := r.start(); err != nil {
				return nil, nil, err
			} else if !started {
				break
			}
		}
		next := math.Inf(1)
		for _, at := range r.running.until {
			next = min(next, at)
		}
		for float64(len(curve)+1) <= min(next/float64(r.steps), c.Time) {
			curve = append(curve, r.regret)
		}
		if next/float64(r.steps) > c.Time {
			return curve, r.falls, nil
		}
		if err := r.step(); err != nil {
			return nil, nil, err
		}
	}
}

type race struct {
	task    Curved
	steps   int
	at      map[int]int // the last step of each trial
	sampler tuner.Sampler
	stopper stop.Stopper
	h       *tuner.History
	running running
	noise   *chance.Rand
	best    float64
	regret  float64
	falls   []Fall
}

// start gives a worker a promoted trial, or a new one.
func (r *race) start() (started bool, err error) {
	if promoter, ok := r.stopper.(stop.Promoter); ok {
		if trial, ok := promoter.Promote(r.h); ok {
			r.running.start(trial)
			return true, r.h.Resume(trial)
		}
	}
	trial, err := tuner.Ask(r.sampler, r.h)
	if errors.Is(err, tuner.ErrExhausted) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r.running.start(trial)
	return true, nil
}

// step lets the trial whose step ends next report. As in a sweep, the history gets what the
// stopper wants, and the end.
func (r *race) step() error {
	trial := r.running.finish()
	r.at[trial]++
	at, c := r.at[trial], r.h.Config(trial)
	value := r.task.At(c, at, r.noise)
	if loss := r.h.Problem().Objectives[0].Loss(value); loss < r.best {
		r.best, r.regret = loss, r.task.Regret(c)
		r.falls = append(r.falls, Fall{At: r.running.now / float64(r.steps), Regret: r.regret})
	}
	if at == r.steps {
		return r.h.End(trial, tuner.Result{State: tuner.Complete, Values: []float64{value}})
	}
	verdict := stop.Continue
	if r.stopper != nil && r.stopper.Wants(r.h, trial, float64(at)) {
		if err := r.h.Report(trial, float64(at), value); err != nil {
			return err
		}
		verdict = r.stopper.Judge(r.h, trial)
	}
	switch verdict {
	case stop.Stop:
		return r.h.End(trial, tuner.Result{State: tuner.Stopped})
	case stop.Pause:
		return r.h.Pause(trial)
	}
	r.running.start(trial)
	return nil
}
