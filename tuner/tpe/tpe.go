// Package tpe is the tree-structured Parzen estimator: J. Bergstra, R. Bardenet, Y. Bengio
// and B. Kegl, "Algorithms for Hyper-Parameter Optimization", NIPS 2011. It is the
// multivariate form, with the bandwidths and settings that S. Watanabe, "Tree-Structured
// Parzen Estimator: Understanding Its Algorithm Components", arXiv 2304.11127, found best.
//
// Trials are split into the good tenth and the rest. Each part is a mixture of a kernel for
// every trial and a wide prior; candidates are drawn from the good one's mixture, and the
// one is suggested that is most likely there and least in the other. Pending trials count
// as bad, so that workers keep apart. A kernel knows only the dimensions that were active
// in its trial; elsewhere it is as wide as the space, so that conditions need no care.
package tpe

import (
	"math"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/plain"
	"github.com/clary-ml/clary/tuner/space"
)

const (
	// startup trials are quasi-random.
	startup = 8
	// candidates are drawn for each suggestion, again and again while all are known.
	candidates, rounds = 64, 10
	// mostGood bounds the good part, mostOthers the kernels of the rest.
	mostGood   = 25
	mostOthers = 2000
)

// New makes the sampler. It takes every problem.
func New(p tuner.Problem) (tuner.Sampler, error) {
	start, err := plain.Quasi(p)
	if err != nil {
		return nil, err
	}
	return &sampler{start: start}, nil
}

type sampler struct {
	start tuner.Sampler
	split split
	of    *tuner.History
}

func (s *sampler) Suggest(h *tuner.History) (space.Config, error) {
	if s.of != h {
		s.of, s.split = h, newSplit(h)
	}
	s.split.catchUp(h)
	if h.Len()+len(h.Prior()) < startup || !s.split.tells(h) {
		return s.start.Suggest(h)
	}
	good, others := s.split.mixtures(h)
	r := chance.New(h.Problem().Seed, 't', 'p', 'e', uint64(h.Len()))
	dims := h.Problem().Space.Dims()
	x, c := make([]float64, len(dims)), make(space.Config, len(h.Problem().Space.Names()))
	var best space.Config
	highest := math.Inf(-1)
	for range rounds {
		for range candidates {
			good.draw(r, x)
			if h.Problem().Space.DecodeTo(x, c); !h.Fresh(c) {
				continue
			}
			if score := good.logDensity(x) - others.logDensity(x); score > highest {
				highest, best = score, append(best[:0], c...)
			}
		}
		if best != nil {
			return best, nil
		}
	}
	return h.Draw(r)
}
