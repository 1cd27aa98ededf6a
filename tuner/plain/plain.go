// Package plain holds the samplers that learn nothing: random, quasi-random and grid.
package plain

import (
	"math"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/sobol"
	"github.com/clary-ml/clary/tuner/space"
)

// Random draws each configuration by itself: Bergstra and Bengio, "Random Search for
// Hyper-Parameter Optimization", JMLR 13 (2012).
func Random(tuner.Problem) (tuner.Sampler, error) { return random{}, nil }

type random struct{}

func (random) Suggest(h *tuner.History) (space.Config, error) {
	return h.Draw(chance.New(h.Problem().Seed, 'r', 'a', 'n', 'd', uint64(h.Len())))
}

// Quasi goes along a scrambled Sobol sequence, which fills the space more evenly.
func Quasi(p tuner.Problem) (tuner.Sampler, error) {
	dims := len(p.Space.Dims())
	q := &quasi{sequence: sobol.New(dims, p.Seed), x: make([]float64, dims), end: math.MaxUint32}
	if size, finite := p.Space.Size(); finite && size < math.MaxUint32/4 {
		// Beyond, most of what is left is found by walking through the space.
		q.end = 4 * size
	}
	return q, nil
}

// quasi suggests the first point of its sequence that is fresh: those before next are not
// and never will be.
type quasi struct {
	sequence  *sobol.Sequence
	x         []float64
	next, end uint64
	of        *tuner.History
}

// patience is how many points of the sequence may fail the constraints for each trial.
const patience = 1 << 12

func (q *quasi) Suggest(h *tuner.History) (space.Config, error) {
	if q.of != h {
		q.of, q.next = h, 0
	}
	c := make(space.Config, len(h.Problem().Space.Names()))
	for ; q.next < min(q.end, uint64(h.Len()+1)*patience); q.next++ {
		q.sequence.At(uint32(q.next), q.x)
		if h.Problem().Space.DecodeTo(q.x, c); h.Fresh(c) {
			return c, nil
		}
	}
	return h.Draw(chance.New(h.Problem().Seed, 'q', 'u', 'a', 's', 'i', uint64(h.Len())))
}
