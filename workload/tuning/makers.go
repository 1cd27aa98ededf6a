package tuning

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/samplers"
)

// Stopper ends trials that are not worth going on with.
type Stopper struct {
	// Name is none, if it is not said.
	Name string `json:"name,omitempty"`
}

func (s Stopper) name() string {
	if s.Name == "none" {
		return ""
	}
	return s.Name
}

// judgement is what becomes of a trial after a point of its curve.
type judgement uint8

const (
	goOn judgement = iota
	stop
	pause
)

// stopper decides about live trials, as a function of the history.
type stopper interface {
	// Wants reports whether it learns from a point at that step.
	Wants(step float64) bool
	// Judge says what becomes of a pending trial after the newest point of its curve.
	Judge(h *tuner.History, number int) judgement
	// Promote is the paused trial that is to go on next.
	Promote(h *tuner.History) (number int, ok bool)
}

func (s Spec) samplerName() string {
	if s.Sampler != "" {
		return s.Sampler
	}
	return "auto"
}

// makers are the sampler and the stopper of a problem, nil for none.
func (s Spec) makers(problem tuner.Problem) (tuner.Sampler, stopper, error) {
	maker, err := samplers.Named(s.samplerName())
	if err != nil {
		return nil, nil, err
	}
	sampler, err := maker(problem)
	if err != nil {
		return nil, nil, err
	}
	if s.Stopper.name() != "" {
		return nil, nil, fault.New(fault.Invalid, "there is no stopper %q", s.Stopper.Name)
	}
	return sampler, nil, nil
}

// checkMakers reports what does not suit the problem.
func (s Spec) checkMakers(problem tuner.Problem) cluster.Problems {
	var p cluster.Problems
	if maker, err := samplers.Named(s.samplerName()); err != nil {
		p.Add("sampler", "%s", err)
	} else if _, err := maker(problem); err != nil {
		p.Add("sampler", "%s", err)
	}
	if s.Stopper.name() != "" {
		p.Add("stopper.name", "there is no stopper %q", cluster.Clip(s.Stopper.Name))
	}
	return p
}
