// Package samplers knows all samplers by name.
package samplers

import (
	"maps"
	"slices"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bayes"
	"github.com/clary-ml/clary/tuner/cmaes"
	"github.com/clary-ml/clary/tuner/plain"
	"github.com/clary-ml/clary/tuner/tpe"
)

// all are the samplers of this build.
func all() map[string]tuner.Maker {
	return map[string]tuner.Maker{
		"auto":   auto,
		"bayes":  bayes.New,
		"random": plain.Random,
		"quasi":  plain.Quasi,
		"grid":   plain.Grid,
		"tpe":    tpe.New,
		"cmaes":  cmaes.New,
	}
}

// Names are the names of all samplers, sorted.
func Names() []string { return slices.Sorted(maps.Keys(all())) }

// Chosen is the name of the sampler that takes a problem: another than the one that was
// named only if that chooses one.
func Chosen(name string, p tuner.Problem) string {
	if name == "auto" {
		return choice(p)
	}
	return name
}

// Named is the sampler of that name.
func Named(name string) (tuner.Maker, error) {
	make, known := all()[name]
	if !known {
		return nil, fault.New(fault.Invalid, "there is no sampler %q: there are %s", name, strings.Join(Names(), ", "))
	}
	return make, nil
}
