package samplers

import (
	"slices"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bayes"
	"github.com/clary-ml/clary/tuner/cmaes"
	"github.com/clary-ml/clary/tuner/space"
)

// longSearch is from how many planned trials on a model of the few hundred best is given up
// for a population: on the BBOB functions in five dimensions CMA-ES needs more than four
// times the trials of bayes, which is ahead at 100.
const longSearch = 2000

// auto chooses by the problem: bayes takes all; a long search of one objective over numbers
// that are always there goes to CMA-ES.
func auto(p tuner.Problem) (tuner.Sampler, error) {
	plainNumbers := !slices.ContainsFunc(p.Space.Dims(), func(d space.Dim) bool { return d.Kind != space.Continuous || d.Parent >= 0 })
	if plainNumbers && p.Budget >= longSearch && len(p.Objectives) == 1 && len(p.Limits) == 0 {
		return cmaes.New(p)
	}
	return bayes.New(p)
}
