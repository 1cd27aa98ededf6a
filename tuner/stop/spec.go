package stop

import (
	"maps"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/tuner"
)

// Spec says which Stopper, as people write it.
type Spec struct {
	// Name is none (as if it is empty), median, asha, asha_promotion or hyperband, which is
	// asha with as many brackets as there are rungs.
	Name string `json:"name,omitempty"`
	// Min, Eta and Brackets are for the halving ones, see Halving.
	Min      float64 `json:"min,omitempty"`
	Eta      float64 `json:"eta,omitempty"`
	Brackets int     `json:"brackets,omitempty"`
	// Trials and Warmup are for median, see Median.
	Trials int     `json:"trials,omitempty"`
	Warmup float64 `json:"warmup,omitempty"`
}

// made is a stopper, or what is wrong with its spec.
type made func(s Spec, f tuner.Fidelity) (Stopper, cluster.Problems)

func makers() map[string]made {
	return map[string]made{
		"": func(Spec, tuner.Fidelity) (Stopper, cluster.Problems) { return nil, nil },
		"median": func(s Spec, _ tuner.Fidelity) (Stopper, cluster.Problems) {
			rule := Median{Trials: s.Trials, Warmup: s.Warmup}
			return rule, rule.Validate()
		},
		"asha": func(s Spec, f tuner.Fidelity) (Stopper, cluster.Problems) { return s.halving(f, false) },
		"hyperband": func(s Spec, f tuner.Fidelity) (Stopper, cluster.Problems) {
			if s.Brackets == 0 {
				s.Brackets = max(len(Halving{Min: s.Min, Eta: s.Eta}.normal(f).steps()), 1)
			}
			return s.halving(f, false)
		},
		"asha_promotion": func(s Spec, f tuner.Fidelity) (Stopper, cluster.Problems) { return s.halving(f, true) },
	}
}

func (s Spec) halving(f tuner.Fidelity, promote bool) (Stopper, cluster.Problems) {
	c := Halving{Min: s.Min, Eta: s.Eta, Brackets: s.Brackets}
	p := c.Validate(f)
	if len(p) > 0 {
		return nil, p
	}
	h := newHalving(c.normal(f))
	if promote {
		return promoting{h}, nil
	}
	return h, nil
}

// Names are the names of all stoppers, sorted.
func Names() []string {
	names := slices.Sorted(maps.Keys(makers()))
	names[0] = "none"
	return names
}

// Validate returns every mistake, for a search with this fidelity.
func (s Spec) Validate(f tuner.Fidelity) cluster.Problems {
	_, p := s.make(f)
	return p
}

// Stopper is the one that the spec says; nil is none.
func (s Spec) Stopper(f tuner.Fidelity) (Stopper, error) {
	stopper, p := s.make(f)
	if err := p.Err(); err != nil {
		return nil, err
	}
	return stopper, nil
}

func (s Spec) make(f tuner.Fidelity) (Stopper, cluster.Problems) {
	name := s.Name
	if name == "none" {
		name = ""
	}
	make, known := makers()[name]
	if !known {
		var p cluster.Problems
		p.Add("name", "there is no stopper %q: there are %s", cluster.Clip(s.Name), strings.Join(Names(), ", "))
		return nil, p
	}
	stopper, p := make(s, f)
	for field, set := range map[string]bool{"min": s.Min != 0, "eta": s.Eta != 0, "brackets": s.Brackets != 0} {
		if set && (name == "" || name == "median") {
			p.Add(field, "the stopper %q has none: leave it out", s.Name)
		}
	}
	for field, set := range map[string]bool{"trials": s.Trials != 0, "warmup": s.Warmup != 0} {
		if set && name != "median" {
			p.Add(field, "the stopper %q has none: leave it out", s.Name)
		}
	}
	slices.SortStableFunc(p, func(a, b cluster.Problem) int { return strings.Compare(a.Field, b.Field) })
	return stopper, p
}
