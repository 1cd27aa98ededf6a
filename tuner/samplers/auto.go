package samplers

import (
	"slices"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
)

// longSearch is from how many planned trials on a model of the few hundred best is given up
// for a population: on the BBOB functions in five dimensions CMA-ES needs more than four
// times the trials of bayes, which is ahead at 100.
const longSearch = 2000

// auto makes the sampler that choice names.
func auto(p tuner.Problem) (tuner.Sampler, error) { return all()[choice(p)](p) }

// choice is by the problem: bayes takes all; a long search of one objective over numbers
// that are always there goes to CMA-ES.
func choice(p tuner.Problem) string {
	plainNumbers := !slices.ContainsFunc(p.Space.Dims(), func(d space.Dim) bool { return d.Kind != space.Continuous || d.Parent >= 0 })
	if plainNumbers && p.Budget >= longSearch && len(p.Objectives) == 1 && len(p.Limits) == 0 {
		return "cmaes"
	}
	return "bayes"
}
