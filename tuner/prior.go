package tuner

import (
	"slices"

	"github.com/clary-ml/clary/tuner/space"
)

// Prior is a complete trial of an earlier sweep, as a point of this search's space.
type Prior struct {
	Sweep  int // its place in Problem.Earlier
	Config space.Config
	Losses []float64 // a loss for each objective of this search
}

// translate takes over the trials that have all objectives and a place in the space.
func translate(p Problem) []Prior {
	var prior []Prior
	for sweep, earlier := range p.Earlier {
		columns := make([]int, len(p.Objectives))
		for i, o := range p.Objectives {
			columns[i] = slices.IndexFunc(earlier.Objectives, func(e Objective) bool { return e.Name == o.Name })
		}
		if slices.Contains(columns, -1) {
			continue
		}
		for _, t := range earlier.Trials {
			if t.State != Complete || !allFinite(t.Values) {
				continue
			}
			c, ok := p.Space.Translate(earlier.Space, t.Config)
			if !ok {
				continue
			}
			losses := make([]float64, len(columns))
			for i, column := range columns {
				losses[i] = p.Objectives[i].Loss(t.Values[column])
			}
			prior = append(prior, Prior{Sweep: sweep, Config: c, Losses: losses})
		}
	}
	return prior
}
