package acquisition

import (
	"math"

	"github.com/clary-ml/clary/tuner/gp"
)

// Objective is what a trial is worth. Points are as the model takes them. It is not for
// concurrent use.
type Objective interface {
	// Values returns the worth of many points together.
	Values(points [][]float64) []float64
	// Gradient returns the worth of x and writes its gradient to grad.
	Gradient(x, grad []float64) float64
}

// Improvement is the logarithm of the expected improvement over the best result. Pending
// results are drawn jointly, and the improvement over the best of results and draws is
// averaged: inside a draw it is exact, and all draws share their variance (Snoek et al.
// 2012 call it fantasies).
type Improvement struct {
	model   *gp.Model
	draws   [][]float64 // by draw, of each pending point
	best    []float64   // by draw
	weights []float64
	values  []float64
	byTail  []float64
}

// NewImprovement over best. The model must have nothing appended; the pending points are
// appended to it, and decided by the rows of draws, which are standard normal: a number for
// each pending point. Without pending points draws are not read.
func NewImprovement(model *gp.Model, best float64, pending, draws [][]float64) *Improvement {
	if len(pending) == 0 {
		draws = [][]float64{nil}
	}
	m := &Improvement{
		model: model, draws: draws, best: make([]float64, len(draws)),
		weights: make([]float64, len(draws)), values: make([]float64, len(draws)), byTail: make([]float64, len(pending)),
	}
	for s := range m.best {
		m.best[s] = best
	}
	noise := model.Hyper().Noise
	for k, x := range pending {
		at := model.At(x)
		deviation := math.Sqrt(at.Variance + noise)
		for s, draw := range draws {
			m.best[s] = math.Max(m.best[s], at.Mean+inner(at.Tail, draw)+deviation*draw[k])
		}
		model.Append(x)
	}
	return m
}

func inner(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

// Values implements Objective.
func (m *Improvement) Values(points [][]float64) []float64 {
	p := m.model.Predict(points)
	r := m.model.Pending()
	out := make([]float64, len(points))
	for i := range points {
		deviation := math.Sqrt(p.Variance[i])
		most := math.Inf(-1)
		for s, draw := range m.draws {
			z := (p.Mean[i] + inner(p.Tail[i*r:(i+1)*r], draw) - m.best[s]) / deviation
			m.values[s], _ = LogImprovement(z)
			most = math.Max(most, m.values[s])
		}
		out[i] = math.Log(deviation) + m.logMean(most)
	}
	return out
}

// logMean is the logarithm of the mean of exp(values), which are at most most.
func (m *Improvement) logMean(most float64) float64 {
	if len(m.values) == 1 {
		return most
	}
	sum := 0.0
	for _, v := range m.values {
		sum += math.Exp(v - most)
	}
	return most + math.Log(sum/float64(len(m.values)))
}

// Gradient implements Objective.
func (m *Improvement) Gradient(x, grad []float64) float64 {
	p := m.model.At(x)
	deviation := math.Sqrt(p.Variance)
	most := math.Inf(-1)
	for s, draw := range m.draws {
		z := (p.Mean + inner(p.Tail, draw) - m.best[s]) / deviation
		m.values[s], m.weights[s] = LogImprovement(z)
		most = math.Max(most, m.values[s])
	}
	value := m.logMean(most)
	byMean, byDeviation := 0.0, 1/deviation
	clear(m.byTail)
	for s, draw := range m.draws {
		slope := m.weights[s] * math.Exp(m.values[s]-value) / float64(len(m.draws)) / deviation
		z := (p.Mean + inner(p.Tail, draw) - m.best[s]) / deviation
		byMean += slope
		byDeviation -= slope * z
		for k, v := range draw {
			m.byTail[k] += slope * v
		}
	}
	m.model.Pull(byMean, byDeviation/(2*deviation), m.byTail, grad)
	return math.Log(deviation) + value
}
