package samplers

import (
	"slices"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/cmaes"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/tuner/tpe"
)

// longSearch is from how many planned trials on CMA-ES overtakes TPE on numbers: between
// 100 and 200 on the BBOB functions in five dimensions.
const longSearch = 200

// auto chooses by the problem: TPE takes all; a long search of one objective over numbers
// that are always there goes to CMA-ES.
func auto(p tuner.Problem) (tuner.Sampler, error) {
	plainNumbers := !slices.ContainsFunc(p.Space.Dims(), func(d space.Dim) bool { return d.Kind != space.Continuous || d.Parent >= 0 })
	if plainNumbers && p.Budget >= longSearch && len(p.Objectives) == 1 {
		return cmaes.New(p)
	}
	return tpe.New(p)
}
