package tuning

import (
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/samplers"
	"github.com/clary-ml/clary/tuner/stop"
)

// StopperFields say how trials are ended that are not worth going on with.
type StopperFields struct {
	// Name is median, asha or hyperband; none if it is not said.
	Name string `json:"name,omitempty"`
	// Halving is for asha, and for hyperband, which has as many brackets as it can if it is
	// not said how many.
	stop.Halving
	// Promote pauses trials at each rung and lets the best go on, from their checkpoints.
	// Without it those that are not among the best when they come to a rung are stopped.
	Promote bool `json:"promote,omitempty"`
	// Median is for median.
	stop.Median
}

// Stopper is StopperFields, or in JSON the name alone.
type Stopper StopperFields

// UnmarshalJSON takes a text or an object.
func (s *Stopper) UnmarshalJSON(text []byte) error {
	if strings.HasPrefix(string(text), `"`) {
		*s = Stopper{Name: strings.Trim(string(text), `"`)}
		return nil
	}
	var fields StopperFields
	if problems := strictjson.Decode(text, &fields); len(problems) > 0 {
		return fault.New(fault.Invalid, "takes the name of a stopper, or an object with one: %w", problems.Err())
	}
	*s = Stopper(fields)
	return nil
}

// The stoppers.
const (
	stopNone      = "none"
	stopMedian    = "median"
	stopASHA      = "asha"
	stopHyperband = "hyperband"
)

func (s Stopper) name() string {
	if s.Name == stopNone {
		return ""
	}
	return s.Name
}

// stopper decides about live trials.
type stopper struct {
	stop.Stopper
	rungs []float64 // at which a trial is judged; nil: at each step
}

// wants reports whether a point teaches the stopper anything: the first at or after a rung.
func (s *stopper) wants(last, step float64) bool {
	if s.rungs == nil {
		return true
	}
	for _, rung := range s.rungs {
		if last < rung && rung <= step {
			return true
		}
	}
	return false
}

// promote is the paused trial that is to go on.
func (s *stopper) promote(h *tuner.History) (number int, ok bool) {
	if promoter, promotes := s.Stopper.(stop.Promoter); promotes {
		return promoter.Promote(h)
	}
	return 0, false
}

// make makes the stopper, nil for none, or reports every mistake.
func (s Stopper) make(f tuner.Fidelity) (*stopper, cluster.Problems) {
	var p cluster.Problems
	halving := s.Name == stopASHA || s.Name == stopHyperband
	if !halving && (s.Halving != stop.Halving{} || s.Promote) {
		p.Add("", "min, max, eta, brackets and promote are for %s and %s", stopASHA, stopHyperband)
	}
	if s.Name != stopMedian && s.Median != (stop.Median{}) {
		p.Add("", "trials and warmup are for %s", stopMedian)
	}
	if len(p) > 0 {
		return nil, p
	}
	switch {
	case s.name() == "":
		return nil, nil
	case s.Name == stopMedian:
		return &stopper{Stopper: s.Median}, s.Median.Validate()
	case !halving:
		p.Add("name", "there is no stopper %q: there are %s, %s, %s and %s", cluster.Clip(s.Name), stopNone, stopMedian, stopASHA, stopHyperband)
		return nil, p
	}
	c := s.Halving
	if f.Max == 0 && c.Max == 0 {
		p.Add("max", "is missing, and fidelity.max too: say after how many steps a trial is complete")
		return nil, p
	}
	if s.Name == stopHyperband && c.Brackets == 0 {
		c.Brackets = max(len(rungs(c, f)), 1)
	}
	if p = c.Validate(f); len(p) > 0 {
		return nil, p
	}
	made := &stopper{rungs: rungs(c, f)}
	var err error
	if s.Promote {
		made.Stopper, err = stop.PromotingASHA(c, f)
	} else {
		made.Stopper, err = stop.ASHA(c, f)
	}
	if err != nil {
		p.Add("", "%s", err)
	}
	return made, p
}

// rungs are the steps at which halving judges: see stop.Halving.
func rungs(c stop.Halving, f tuner.Fidelity) []float64 {
	if c.Min == 0 {
		c.Min = 1
	}
	if c.Max == 0 {
		c.Max = f.Max
	}
	if c.Eta == 0 {
		c.Eta = 3
	}
	var steps []float64
	if c.Min > 0 && c.Eta > 1 {
		for step := c.Min; step < c.Max && len(steps) < 64; step *= c.Eta {
			steps = append(steps, step)
		}
	}
	return steps
}

// Convergence ends a sweep that promises too little.
type Convergence = stop.Convergence

// enders end the sweep as a whole. The target is one of them.
func (s Spec) enders() []stop.Ender {
	var enders []stop.Ender
	if s.Target != nil {
		enders = append(enders, stop.Target{Value: *s.Target})
	}
	if s.Patience > 0 {
		enders = append(enders, stop.Patience{Trials: s.Patience})
	}
	if s.Convergence != nil {
		enders = append(enders, *s.Convergence)
	}
	return enders
}

func (s Spec) samplerName() string {
	if s.Sampler != "" {
		return s.Sampler
	}
	return "auto"
}

// chosenName is the sampler's name, and that of the one that auto has chosen.
func (s Spec) chosenName(problem tuner.Problem) string {
	name := s.samplerName()
	if chosen := samplers.Chosen(name, problem); chosen != name {
		return name + " (" + chosen + ")"
	}
	return name
}

// newSampler is the sampler of a problem.
func (s Spec) newSampler(problem tuner.Problem) (tuner.Sampler, error) {
	maker, err := samplers.Named(s.samplerName())
	if err != nil {
		return nil, err
	}
	return maker(problem)
}

// checkMakers reports what does not suit the problem.
func (s Spec) checkMakers(problem tuner.Problem) cluster.Problems {
	var p cluster.Problems
	if _, err := s.newSampler(problem); err != nil {
		p.Add("sampler", "%s", err)
	}
	_, problems := s.Stopper.make(problem.Fidelity)
	p.Under("stopper", problems)
	if s.Patience < 0 {
		p.Add("patience", "%d: give 1 or more, or 0 for none", s.Patience)
	}
	if s.Convergence != nil {
		p.Under("convergence", s.Convergence.Validate())
		if len(s.Objectives) > 1 {
			p.Add("convergence", "is for one objective: there are %d", len(s.Objectives))
		}
	}
	if s.Trial != nil && s.Stopper.Promote && !s.checkpoints() {
		p.Add("stopper.promote", "trials go on from checkpoints, and the trial has none: set trial.checkpoints: true")
	}
	return p
}

// checkpoints reports whether trials keep checkpoints.
func (s Spec) checkpoints() bool {
	t := s.Trial
	if t.Checkpoints != nil {
		return *t.Checkpoints
	}
	return t.Program == nil || t.Image != ""
}
