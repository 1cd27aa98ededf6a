package tuning

import (
	"fmt"
	"math"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/internal/strictjson"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/workload/training"
)

// Spec is what a tuning job asks for. The job's retries are those of each trial; its longest
// run time is that of the whole sweep.
type Spec struct {
	// Space is what is searched.
	Space Space `json:"space"`
	// Objectives are the metrics to make small or large: one, or several of which none is
	// more important.
	Objectives []tuner.Objective `json:"objectives"`
	// Limits are metrics that a good trial keeps within bounds.
	Limits []tuner.Limit `json:"limits,omitempty"`

	// Sampler proposes trials: auto, which chooses one, if it is not said.
	Sampler string `json:"sampler,omitempty"`
	// Stopper ends trials that are not worth going on with.
	Stopper Stopper `json:"stopper,omitzero"`
	// Fidelity is what a trial's learning curve is measured along: epochs, if its name is not
	// said, or steps. Max is where a trial is complete: the template's epochs, if it has any.
	Fidelity tuner.Fidelity `json:"fidelity,omitzero"`
	// Noiseless says that the same configuration gives the same values again.
	Noiseless bool `json:"noiseless,omitempty"`
	// Seed decides all random choices.
	Seed uint64 `json:"seed,omitempty"`

	// Budget is how much may be tried; without any a sweep ends when it is told to, or when
	// its space is exhausted.
	Budget Budget `json:"budget,omitzero"`
	// Prices are what a trial's cost is made of.
	Prices Prices `json:"prices,omitzero"`
	// Parallel is how many trials run at once; 0 means 1.
	Parallel int32 `json:"parallel,omitempty"`
	// Target ends the sweep once a trial reaches it, Patience after so many trials in a row
	// without a better one, Convergence when little more is expected.
	Target      *float64     `json:"target,omitempty"`
	Patience    int          `json:"patience,omitempty"`
	Convergence *Convergence `json:"convergence,omitempty"`
	// MaxFailed is how many trials may fail, before any has succeeded, until the sweep has
	// failed; 0 means 5, or as many as run at once if that is more.
	MaxFailed int32 `json:"max_failed,omitempty"`

	// Initial are tried first.
	Initial []map[string]expr.Value `json:"initial,omitempty"`
	// WarmStart are names of sweeps that have ended, to learn from.
	WarmStart []string `json:"warm_start,omitempty"`

	// TrialRuntime is how long one trial may run; 0 is no limit.
	TrialRuntime quantity.Duration `json:"trial_runtime,omitzero"`
	// Trial is the training job that each trial is, with its parameters put in. Without one
	// the sweep is a study: its trials are run by whoever asks for them.
	Trial *training.Spec `json:"trial,omitempty"`
}

// Space is a search space.
type Space struct {
	Parameters []Parameter `json:"parameters"`
	// Constraints must all hold, as in "depth * width <= 4096".
	Constraints []string `json:"constraints,omitempty"`
}

// Parameter is one thing to choose. For a script, a program or an image it becomes a
// hyperparameter of its name, and stands for ${name} in a program's command and variables.
// For a declared network it is the field of the template that its name is the path of.
type Parameter struct {
	space.Parameter
	// Path is the field of the template that gets the value, like optimizer.adam.rate or
	// network.layers[0].dense.units.
	Path string `json:"path,omitempty"`
}

// Budget is how much a sweep may use. What is 0 has no bound.
type Budget struct {
	// Trials is how many are begun.
	Trials int64 `json:"trials,omitempty"`
	// Time counts from the first trial's begin, without pauses. Trials that run when it is up
	// are stopped.
	Time quantity.Duration `json:"time,omitzero"`
	// Cost is in whatever Prices are in.
	Cost float64 `json:"cost,omitempty"`
}

// Prices are what an hour of a core, and of a GPU, costs.
type Prices struct {
	CoreHour float64 `json:"core_hour,omitempty"`
	GPUHour  float64 `json:"gpu_hour,omitempty"`
}

// Limits on one tuning job.
const (
	MaxInitial   = 10_000
	MaxWarmStart = 5
)

// Parse reads a spec and reports every mistake in it; the spec is only good without any.
func Parse(data []byte) (Spec, cluster.Problems) {
	var s Spec
	if problems := strictjson.Decode(data, &s); len(problems) > 0 {
		return Spec{}, problems
	}
	return s, s.Validate()
}

// read reads a spec that was accepted before, perhaps under an older version's rules.
func read(data []byte) (Spec, error) {
	var s Spec
	return s, strictjson.Decode(data, &s).Err()
}

// Validate reports every mistake, each with the path of its field.
func (s Spec) Validate() cluster.Problems {
	var p cluster.Problems
	compiled := s.compile(&p)
	if compiled == nil {
		return p
	}
	problem, problems := s.problem(compiled)
	p = append(p, problems...)
	p.Under("budget", s.Budget.cluster().Validate())
	s.checkNumbers(&p)
	if len(p) == 0 {
		p.Under("", s.checkMakers(problem))
	}
	s.checkWarmStart(&p)
	if s.Trial == nil {
		s.checkStudy(&p)
		return p
	}
	p.Under("", s.checkTemplate(compiled))
	return p
}

func (s Spec) compile(p *cluster.Problems) *space.Space {
	compiled, err := s.Space.spec().Compile()
	if err == nil {
		return compiled
	}
	if problems, many := err.(cluster.Problems); many { //nolint:errorlint // Compile promises it
		p.Under("space", problems)
	} else {
		p.Add("space", "%s", err)
	}
	return nil
}

func (s Space) spec() space.Spec {
	out := space.Spec{Constraints: s.Constraints}
	for _, parameter := range s.Parameters {
		out.Parameters = append(out.Parameters, parameter.Parameter)
	}
	return out
}

// problem is what the tuner searches. It has no earlier sweeps yet.
func (s Spec) problem(compiled *space.Space) (tuner.Problem, cluster.Problems) {
	var p cluster.Problems
	problem := tuner.Problem{
		Space: compiled, Objectives: s.Objectives, Limits: s.Limits, Fidelity: s.fidelity(), Noiseless: s.Noiseless,
		Seed: s.Seed, Budget: int(s.Budget.Trials), Workers: int(max(s.Parallel, 1)),
	}
	if len(s.Initial) > MaxInitial {
		p.Add("initial", "%d points: at most %d", len(s.Initial), MaxInitial)
		return problem, p
	}
	for i, values := range s.Initial {
		config, problems := compiled.Parse(values)
		p.Under(fmt.Sprintf("initial[%d]", i), problems)
		if len(problems) == 0 {
			problem.Initial = append(problem.Initial, config)
		}
	}
	for _, found := range problem.Validate() {
		if found.Field != "budget" && found.Field != "workers" { // said in the sweep's own words
			p = append(p, found)
		}
	}
	return problem, p
}

// fidelity fills in the epochs of a template.
func (s Spec) fidelity() tuner.Fidelity {
	f := s.Fidelity
	if f.Max == 0 && s.Trial != nil && s.bySteps() == stepEpoch {
		f.Max = float64(s.Trial.Epochs)
	}
	return f
}

// The names of what a trial of a template counts.
const (
	stepEpoch = "epoch"
	stepStep  = "step"
)

func (s Spec) bySteps() string {
	switch s.Fidelity.Name {
	case "step", "steps":
		return stepStep
	}
	return stepEpoch
}

func (s Spec) checkNumbers(p *cluster.Problems) {
	inRange := func(field string, value, most int64) {
		if value < 0 || value > most {
			p.Add(field, "%d is out of range: from 0 to %d", value, most)
		}
	}
	inRange("parallel", int64(s.Parallel), cluster.MaxParallel)
	inRange("max_failed", int64(s.MaxFailed), cluster.MaxTrials)
	for field, price := range map[string]float64{"prices.core_hour": s.Prices.CoreHour, "prices.gpu_hour": s.Prices.GPUHour} {
		if !(price >= 0) || math.IsInf(price, 0) {
			p.Add(field, "%v: give a number from 0", price)
		}
	}
	if d := s.TrialRuntime.Std(); d < 0 || d > 10*365*24*time.Hour {
		p.Add("trial_runtime", "%s is out of range", d)
	}
	if s.Target != nil && (math.IsNaN(*s.Target) || math.IsInf(*s.Target, 0)) {
		p.Add("target", "%v: give a finite number", *s.Target)
	}
	if s.Target != nil && len(s.Objectives) > 1 {
		p.Add("target", "is for one objective: there are %d", len(s.Objectives))
	}
}

func (s Spec) checkWarmStart(p *cluster.Problems) {
	if len(s.WarmStart) > MaxWarmStart {
		p.Add("warm_start", "%d sweeps: at most %d", len(s.WarmStart), MaxWarmStart)
	}
	seen := map[string]bool{}
	for i, name := range s.WarmStart {
		field := fmt.Sprintf("warm_start[%d]", i)
		cluster.CheckName(p, field, name)
		if seen[name] {
			p.Add(field, "%q is there twice", cluster.Clip(name))
		}
		seen[name] = true
	}
}

// checkStudy refuses what needs a template.
func (s Spec) checkStudy(p *cluster.Problems) {
	for i, parameter := range s.Space.Parameters {
		if parameter.Path != "" {
			p.Add(fmt.Sprintf("space.parameters[%d].path", i), "%q: there is no trial for it to be a field of", cluster.Clip(parameter.Path))
		}
	}
	for _, other := range []struct {
		field string
		set   bool
	}{
		{"prices", s.Prices != Prices{}},
		{"trial_runtime", s.TrialRuntime != 0},
	} {
		if other.set {
			p.Add(other.field, "is for a sweep that runs its trials itself, and there is no trial: who runs them tells what they cost")
		}
	}
}

func (b Budget) cluster() cluster.Budget {
	return cluster.Budget{Trials: b.Trials, Time: b.Time.Std(), Cost: b.Cost}
}
