package tpe

import (
	"math"
	"slices"

	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// none is the level of a dimension that is not active.
const none = -1

// mixture is a weighted sum of product kernels, one for each trial, and the prior, which is
// the last one. What it knows stands in columns, one for each dimension.
type mixture struct {
	space   *space.Space
	columns []column
	weights []float64 // of kernels
	sums    []float64 // of weights so far, for drawing
	logs    []float64 // of weights, normalised

	x      []float64 // room for one configuration
	active []bool
	scores []float64
}

func newMixture(s *space.Space, room int) *mixture {
	dims := s.Dims()
	m := &mixture{space: s, columns: make([]column, len(dims)), x: make([]float64, len(dims)), active: make([]bool, len(dims))}
	for i, dim := range dims {
		m.columns[i] = newColumn(dim, room+1)
	}
	return m
}

func (m *mixture) add(c space.Config, weight float64) {
	m.space.Encode(c, m.x, m.active)
	for i := range m.columns {
		m.columns[i].add(m.x[i], m.active[i])
	}
	m.weights = append(m.weights, weight)
}

// finish adds the prior and works out the kernels. No add after it.
func (m *mixture) finish() {
	n, d := float64(len(m.weights)), float64(len(m.columns))
	m.weights = append(m.weights, 1)
	total := 0.0
	for _, w := range m.weights {
		total += w
		m.sums = append(m.sums, total)
	}
	for _, w := range m.weights {
		m.logs = append(m.logs, math.Log(w/total))
	}
	least := 1 / min(100, 2+n)
	scott := max(0.2*math.Pow(max(n, 1), -1/(d+4)), least)
	for i := range m.columns {
		m.columns[i].finish(scott, least)
	}
	m.scores = make([]float64, len(m.weights))
}

// draw writes the coordinates of a random point.
func (m *mixture) draw(r *chance.Rand, x []float64) {
	k, _ := slices.BinarySearch(m.sums, r.Float64()*m.sums[len(m.sums)-1])
	for i := range m.columns {
		x[i] = m.columns[i].draw(r, min(k, len(m.weights)-1))
	}
}

// logDensity is the logarithm of the mixture at coordinates x, of the dimensions that are
// active there. Levels have their probability, continuous coordinates their density: the
// same in every mixture, so that they compare.
func (m *mixture) logDensity(x []float64) float64 {
	m.space.Active(x, m.active)
	copy(m.scores, m.logs)
	for i := range m.columns {
		if m.active[i] {
			m.columns[i].score(x[i], m.scores)
		}
	}
	highest := slices.Max(m.scores)
	total := 0.0
	for _, s := range m.scores {
		if s > highest-50 { // what is below changes no digit
			total += math.Exp(s - highest)
		}
	}
	return highest + math.Log(total)
}
