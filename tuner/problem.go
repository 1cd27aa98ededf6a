package tuner

import (
	"fmt"
	"math"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/tuner/space"
)

// Direction is which values of an objective are better.
type Direction string

// The directions. An empty Direction is Minimize.
const (
	Minimize Direction = "minimize"
	Maximize Direction = "maximize"
)

// Objective is a metric to make small or large.
type Objective struct {
	Name      string    `json:"name"`
	Direction Direction `json:"direction,omitempty"`
}

// Loss is a value of the objective as something to minimise.
func (o Objective) Loss(value float64) float64 {
	if o.Direction == Maximize {
		return -value
	}
	return value
}

// Limit is a metric that a good trial keeps within bounds: a constraint on what comes out.
type Limit struct {
	Name string   `json:"name"`
	Min  *float64 `json:"min,omitempty"`
	Max  *float64 `json:"max,omitempty"`
}

// Excess is how far a value lies outside; 0 or less is within.
func (l Limit) Excess(value float64) float64 {
	excess := math.Inf(-1)
	if l.Min != nil {
		excess = *l.Min - value
	}
	if l.Max != nil {
		excess = max(excess, value-*l.Max)
	}
	return excess
}

// Fidelity is the resource that a trial's learning curve is measured along, such as epochs.
type Fidelity struct {
	Name string  `json:"name,omitempty"`
	Max  float64 `json:"max,omitempty"` // at which a trial is complete; 0: there are no curves
}

// Problem is what is searched: it never changes during a search, except by growing.
type Problem struct {
	Space      *space.Space
	Objectives []Objective
	Limits     []Limit
	Fidelity   Fidelity
	// Noiseless says that the same configuration gives the same values again.
	Noiseless bool
	// Seed decides all random choices.
	Seed uint64
	// Budget is how many trials are planned, Workers how many run at once; 0 is unknown.
	Budget, Workers int
	// Initial are tried before a sampler is asked.
	Initial []space.Config
	// Earlier are the trials of other sweeps, to learn from.
	Earlier []Earlier
}

// Earlier is a sweep that was run before, on the same or another space. Its objectives are
// matched by name.
type Earlier struct {
	Space      *space.Space
	Objectives []Objective
	Trials     []Trial
}

// MaxObjectives is how many objectives a problem may have.
const MaxObjectives = 16

// Validate returns every mistake in the problem.
func (p Problem) Validate() cluster.Problems {
	var found cluster.Problems
	if p.Space == nil {
		found.Add("space", "is missing")
		return found
	}
	if len(p.Objectives) == 0 || len(p.Objectives) > MaxObjectives {
		found.Add("objectives", "%d objectives: give 1 to %d", len(p.Objectives), MaxObjectives)
	}
	names := make(map[string]string)
	name := func(field, name string) {
		if name == "" {
			found.Add(field, "is missing: name the metric")
		} else if other, twice := names[name]; twice {
			found.Add(field, "%q is %s already", cluster.Clip(name), other)
		}
		names[name] = field
	}
	for i, o := range p.Objectives {
		field := fmt.Sprintf("objectives[%d]", i)
		name(field+".name", o.Name)
		if o.Direction != "" && o.Direction != Minimize && o.Direction != Maximize {
			found.Add(field+".direction", "%q: give minimize or maximize", cluster.Clip(string(o.Direction)))
		}
	}
	for i, l := range p.Limits {
		field := fmt.Sprintf("limits[%d]", i)
		name(field+".name", l.Name)
		l.check(&found, field)
	}
	if m := p.Fidelity.Max; math.IsNaN(m) || math.IsInf(m, 0) || m < 0 {
		found.Add("fidelity.max", "%v: give a number above 0", m)
	}
	if p.Budget < 0 {
		found.Add("budget", "%d: give 0 for unknown, or more", p.Budget)
	}
	if p.Workers < 0 {
		found.Add("workers", "%d: give 0 for unknown, or more", p.Workers)
	}
	for i, c := range p.Initial {
		found.Under(fmt.Sprintf("initial[%d]", i), p.Space.Check(c))
	}
	return found
}

func (l Limit) check(found *cluster.Problems, field string) {
	if l.Min == nil && l.Max == nil {
		found.Add(field, "has no bound: give min, max or both")
	}
	for _, bound := range []*float64{l.Min, l.Max} {
		if bound != nil && (math.IsNaN(*bound) || math.IsInf(*bound, 0)) {
			found.Add(field, "%v is no bound: give a finite number", *bound)
		}
	}
	if l.Min != nil && l.Max != nil && *l.Min > *l.Max {
		found.Add(field+".max", "%v is below min %v: exchange them", *l.Max, *l.Min)
	}
}
