// Package importance says how much of what happened hangs on each parameter, by fANOVA: F.
// Hutter, H. Hoos and K. Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter
// Importance", ICML 2014. A random forest is fitted to the trials; of each tree, the
// variance over the whole space is divided exactly into what each parameter explains alone
// and what each pair explains beyond that.
package importance

import (
	"cmp"
	"math"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
)

// Method names what Of does, for those who read its result.
const Method = "fANOVA (Hutter et al., 2014) on a random forest of 64 trees"

// Share is the part of the variance that a parameter explains alone, or a pair beyond its
// two parameters.
type Share struct {
	Names []string // one or two
	Share float64  // mean over trees, of 1
	Error float64  // its standard deviation over trees
}

// Limits on what Of looks at.
const (
	// LeastTrials are how many must be complete.
	LeastTrials = 10
	// mostTrials are fitted; of more, some at even distances.
	mostTrials = 600
	// paired are the most important parameters, whose pairs are looked at.
	paired = 6
)

// Of divides the variance of an objective over the space. Singles has a share for every
// free parameter, pairs those of the most important ones; both are sorted, the largest
// first. Very bad losses count only as bad as Tukey's fence: the third quartile and one and
// a half times the distance between quartiles. A parameter that was not active counts as
// being in its middle.
func Of(h *tuner.History, objective int) (singles, pairs []Share, err error) {
	if objective < 0 || objective >= len(h.Problem().Objectives) {
		return nil, nil, fault.New(fault.Invalid, "objective %d: there are objectives 0 to %d", objective, len(h.Problem().Objectives)-1)
	}
	s := collect(h, objective)
	if len(s.points) < LeastTrials {
		return nil, nil, fault.New(fault.Unready, "%d trials are complete: importance needs %d", len(s.points), LeastTrials)
	}
	if len(s.dims) == 0 || slices.Min(s.losses) == slices.Max(s.losses) {
		return nil, nil, fault.New(fault.Unready, "all %d complete trials came out the same: nothing hangs on any parameter yet", len(s.points))
	}
	forest := make([]tree, trees)
	for i := range forest {
		forest[i] = newTree(s, s.grow(chance.New(0, 'f', 'a', 'n', 'o', 'v', 'a', uint64(i))))
	}
	alone := make([][]float64, len(s.dims)) // by dimension and tree
	for dim := range s.dims {
		for _, t := range forest {
			alone[dim] = append(alone[dim], t.single(dim))
		}
		singles = append(singles, shareOf(forest, alone[dim], s.dims[dim].Name))
	}
	order := make([]int, len(s.dims))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(singles[b].Share, singles[a].Share) })
	order = order[:min(len(order), paired)]
	for i, a := range order {
		for _, b := range order[:i] {
			var together []float64
			for k, t := range forest {
				together = append(together, max(t.pair(a, b)-alone[a][k]-alone[b][k], 0))
			}
			pairs = append(pairs, shareOf(forest, together, s.dims[b].Name, s.dims[a].Name))
		}
	}
	for _, shares := range [][]Share{singles, pairs} {
		slices.SortStableFunc(shares, func(a, b Share) int {
			return cmp.Or(cmp.Compare(b.Share, a.Share), slices.Compare(a.Names, b.Names))
		})
	}
	return singles, pairs, nil
}

// shareOf averages a variance over the trees that have any.
func shareOf(forest []tree, variances []float64, names ...string) Share {
	var shares []float64
	for i, t := range forest {
		if t.variance > 0 {
			shares = append(shares, variances[i]/t.variance)
		}
	}
	share := Share{Names: names}
	for _, v := range shares {
		share.Share += v / float64(len(shares))
	}
	for _, v := range shares {
		share.Error += (v - share.Share) * (v - share.Share) / float64(len(shares))
	}
	share.Error = math.Sqrt(share.Error)
	return share
}

// collect takes the complete trials.
func collect(h *tuner.History, objective int) sample {
	s := sample{dims: h.Problem().Space.Dims()}
	var numbers []int
	for number := range h.Len() {
		if h.State(number) == tuner.Complete {
			numbers = append(numbers, number)
		}
	}
	stride := max((len(numbers)+mostTrials-1)/mostTrials, 1)
	active := make([]bool, len(s.dims))
	for i := 0; i < len(numbers); i += stride {
		x := make([]float64, len(s.dims))
		h.Problem().Space.Encode(h.Config(numbers[i]), x, active)
		s.points = append(s.points, x)
		s.losses = append(s.losses, h.Loss(numbers[i], objective))
	}
	s.fence()
	return s
}

// fence bounds the losses, and brings them to the size of 1.
func (s sample) fence() {
	if len(s.losses) == 0 {
		return
	}
	sorted := slices.Sorted(slices.Values(s.losses))
	n := len(sorted)
	low, first, third := sorted[0], sorted[n/4], sorted[3*n/4]
	high := min(third+1.5*(third-first), sorted[n-1])
	width := high/2 - low/2
	for i, v := range s.losses {
		if s.losses[i] = 0; width > 0 {
			s.losses[i] = (min(v, high)/2 - low/2) / width
		}
	}
}
