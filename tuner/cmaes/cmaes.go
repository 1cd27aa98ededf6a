// Package cmaes is the covariance matrix adaptation evolution strategy, for spaces with
// levels, choices and conditions too.
//
// The strategy is that of N. Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv
// 1604.00772, with negative weights, and restarts with twice the population when it stands
// still (A. Auger and N. Hansen, "A Restart CMA Evolution Strategy With Increasing
// Population Size", CEC 2005). Levels keep a least probability of changing: R. Hamano, S.
// Saito, M. Nomura and S. Shirakawa, "CMA-ES with Margin", GECCO 2022. Choices without an
// order have a categorical distribution each, as in "CatCMA" by the same authors, GECCO
// 2024. Earlier sweeps set where it begins: M. Nomura, S. Watanabe, Y. Akimoto, Y. Ozaki
// and M. Onishi, "Warm Starting CMA-ES for Hyperparameter Optimization", AAAI 2021.
//
// There are no generations of asks: any number of workers draw from the distribution as it
// is, and it moves whenever as many trials have ended as the population is large, in the
// order of their ends.
package cmaes

import (
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// New makes the sampler for a problem of one objective.
func New(p tuner.Problem) (tuner.Sampler, error) {
	if len(p.Objectives) > 1 {
		return nil, fault.New(fault.Invalid, "cmaes takes one objective, not %d: use tpe", len(p.Objectives))
	}
	return &sampler{}, nil
}

type sampler struct {
	of   *tuner.History
	fold *fold
}

// draws are how often the distribution is asked for something fresh; after each wider ones
// it grows wider.
const draws, wider = 200, 10

func (s *sampler) Suggest(h *tuner.History) (space.Config, error) {
	if s.of != h {
		s.of, s.fold = h, newFold(h)
	}
	s.fold.catchUp(h)
	r := chance.New(h.Problem().Seed, 'c', 'm', 'a', uint64(h.Len()))
	c := make(space.Config, len(h.Problem().Space.Names()))
	x := make([]float64, len(h.Problem().Space.Dims()))
	for try := range draws {
		s.fold.draw(r, x, 1+float64(try/wider)/2)
		if h.Problem().Space.DecodeTo(x, c); h.Fresh(c) {
			return c, nil
		}
	}
	return h.Draw(r)
}
