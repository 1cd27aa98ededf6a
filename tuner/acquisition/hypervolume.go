package acquisition

import (
	"math"

	"github.com/clary-ml/clary/tuner/gp"
)

// Hypervolume is the logarithm of the expected improvement of the volume that results of
// several objectives dominate, above a reference point. With independent models of the
// objectives, the volume is a mean over directions λ of the greatest min_j (y_j-ref_j)/λ_j to
// the power of their number (Zhang and Golovin 2020, "Random hypervolume scalarizations");
// in each direction, the expected improvement is one integral over the probability that all
// objectives pass a level, computed by quadrature.
type Hypervolume struct {
	models     []*gp.Model
	reference  []float64
	directions [][]float64
	best       []float64 // by direction, at least 0

	logs       []float64
	byMean     []float64
	byVariance []float64
	scratch    []float64
}

// NewHypervolume improvement over the results y, by result and objective. The pending
// points are appended to the models, and taken to turn out as expected. Directions have
// positive parts and length 1.
func NewHypervolume(models []*gp.Model, y [][]float64, reference []float64, directions, pending [][]float64) *Hypervolume {
	m := &Hypervolume{
		models: models, reference: reference, directions: directions, best: make([]float64, len(directions)),
		byMean: make([]float64, len(models)), byVariance: make([]float64, len(models)),
	}
	expected := make([]float64, len(models))
	for _, x := range pending {
		for j, model := range models {
			expected[j] = model.At(x).Mean
			model.Append(x)
		}
		m.reach(expected)
	}
	for _, row := range y {
		m.reach(row)
	}
	return m
}

func (m *Hypervolume) reach(y []float64) {
	for k, direction := range m.directions {
		level := math.Inf(1)
		for j, v := range y {
			level = math.Min(level, (v-m.reference[j])/direction[j])
		}
		m.best[k] = math.Max(m.best[k], level)
	}
}

// Values implements Objective.
func (m *Hypervolume) Values(points [][]float64) []float64 {
	predictions := make([]gp.Predictions, len(m.models))
	for j, model := range m.models {
		predictions[j] = model.Predict(points)
	}
	mean, deviation := make([]float64, len(m.models)), make([]float64, len(m.models))
	out := make([]float64, len(points))
	for i := range points {
		for j, p := range predictions {
			mean[j], deviation[j] = p.Mean[i], math.Sqrt(p.Variance[i])
		}
		out[i] = m.value(mean, deviation, nil, nil)
	}
	return out
}

// Gradient implements Objective.
func (m *Hypervolume) Gradient(x, grad []float64) float64 {
	mean, deviation := make([]float64, len(m.models)), make([]float64, len(m.models))
	for j, model := range m.models {
		p := model.At(x)
		mean[j], deviation[j] = p.Mean, math.Sqrt(p.Variance)
	}
	byMean, byDeviation := make([]float64, len(mean)), make([]float64, len(mean))
	value := m.value(mean, deviation, byMean, byDeviation)
	part := make([]float64, len(grad))
	clear(grad)
	for j, model := range m.models {
		model.Pull(byMean[j], byDeviation[j]/(2*deviation[j]), nil, part)
		for i, g := range part {
			grad[i] += g
		}
	}
	return value
}

// gauss are nodes and weights on [0,1] (Gauss-Legendre, 12 points).
var gauss = func() (rule [12][2]float64) {
	half := [6][2]float64{
		{0.1252334085114689, 0.2491470458134028},
		{0.3678314989981802, 0.2334925365383548},
		{0.5873179542866175, 0.2031674267230659},
		{0.7699026741943047, 0.1600783285433462},
		{0.9041172563704749, 0.1069393259953184},
		{0.9815606342467192, 0.0471753363865118},
	}
	for i, p := range half {
		rule[2*i] = [2]float64{(1 - p[0]) / 2, p[1] / 2}
		rule[2*i+1] = [2]float64{(1 + p[0]) / 2, p[1] / 2}
	}
	return rule
}()

// value is the log of the mean over directions of ∫ t^(m-1) Π_j Φ((mean_j-ref_j-λ_j t)/σ_j) dt
// from the best level on; it adds derivatives to byMean and byDeviation unless nil.
func (m *Hypervolume) value(mean, deviation, byMean, byDeviation []float64) float64 {
	m.logs = m.logs[:0]
	m.scratch = m.scratch[:0]
	power := float64(len(mean) - 1)
	most := math.Inf(-1)
	for k, direction := range m.directions {
		width := m.span(k, mean, deviation).width
		for _, node := range gauss {
			t := m.best[k] + width*node[0]
			log := math.Log(width*node[1]) + power*math.Log(t)
			for j, mu := range mean {
				z := (mu - m.reference[j] - direction[j]*t) / deviation[j]
				v, slope := logBelow(z)
				log += v
				m.scratch = append(m.scratch, slope, z)
			}
			m.logs = append(m.logs, log)
			most = math.Max(most, log)
		}
	}
	if math.IsInf(most, -1) {
		return most
	}
	sum := 0.0
	for _, log := range m.logs {
		sum += math.Exp(log - most)
	}
	if byMean != nil {
		for i, log := range m.logs {
			m.logs[i] = math.Exp(log-most) / sum
		}
		m.differentiate(mean, deviation, byMean, byDeviation)
	}
	return most + math.Log(sum/float64(len(m.directions)))
}

// differentiate adds the derivatives of value, of whose nodes logs holds the shares in the
// sum. The nodes move with the span, which moves with one of the objectives.
func (m *Hypervolume) differentiate(mean, deviation, byMean, byDeviation []float64) {
	power := float64(len(mean) - 1)
	for k, direction := range m.directions {
		span := m.span(k, mean, deviation)
		byWidth := 0.0
		for n, node := range gauss {
			i := k*len(gauss) + n
			slopes := m.scratch[2*i*len(mean) : 2*(i+1)*len(mean)]
			byLevel := power / (m.best[k] + span.width*node[0])
			for j := range mean {
				slope, z := slopes[2*j], slopes[2*j+1]
				byMean[j] += m.logs[i] * slope / deviation[j]
				byDeviation[j] -= m.logs[i] * slope * z / deviation[j]
				byLevel -= slope * direction[j] / deviation[j]
			}
			byWidth += m.logs[i] * (1/span.width + node[0]*byLevel)
		}
		byMean[span.of] += byWidth * span.byMean
		byDeviation[span.of] += byWidth * span.byDeviation
	}
}

// span is how far above the best level of a direction the integrand matters, and the
// objective whose model ends it, with derivatives by that model's mean and deviation.
type span struct {
	width, byMean, byDeviation float64
	of                         int
}

// span of a direction: to where the first of the objectives is 6 deviations out of reach,
// and less if the best level is out of reach already, where the tail falls faster.
func (m *Hypervolume) span(k int, mean, deviation []float64) span {
	least := span{width: math.Inf(1)}
	direction := m.directions[k]
	for j, mu := range mean {
		z := (mu - m.reference[j] - direction[j]*m.best[k]) / deviation[j]
		reach, slope := z+6, 1.0
		if z < 0 {
			reach = 6 / (1 - z)
			slope = reach / (1 - z)
		}
		if width := reach * deviation[j] / direction[j]; width < least.width {
			least = span{width: width, byMean: slope / direction[j], byDeviation: (reach - slope*z) / direction[j], of: j}
		}
	}
	return least
}

// logBelow returns log Φ(z) and its derivative.
func logBelow(z float64) (value, slope float64) {
	if z > -1 {
		below := 0.5 * math.Erfc(-z/math.Sqrt2)
		return math.Log(below), math.Exp(-0.5*z*z) * invSqrt2Pi / below
	}
	ratio := mills(z)
	return -0.5*z*z - logSqrt2Pi + math.Log(ratio), 1 / ratio
}

// mills is Φ(z)/φ(z) for z ≤ -1.
func mills(z float64) float64 {
	if z > -25 {
		return sqrtHalfPi * erfcx(-z/math.Sqrt2)
	}
	w := 1 / (z * z)
	return (1 - w*(1-w*(3-w*(15-105*w)))) / -z
}

// Feasible adds to an objective the logarithms of the probabilities that the models of
// limits are at least their thresholds. Without an objective it is those alone.
type Feasible struct {
	Objective  Objective
	Limits     []*gp.Model
	Thresholds []float64

	part []float64
}

// Values implements Objective.
func (m *Feasible) Values(points [][]float64) []float64 {
	out := make([]float64, len(points))
	if m.Objective != nil {
		out = m.Objective.Values(points)
	}
	for k, model := range m.Limits {
		p := model.Predict(points)
		for i := range points {
			v, _ := logBelow((p.Mean[i] - m.Thresholds[k]) / math.Sqrt(p.Variance[i]))
			out[i] += v
		}
	}
	return out
}

// Gradient implements Objective.
func (m *Feasible) Gradient(x, grad []float64) float64 {
	value := 0.0
	clear(grad)
	if m.Objective != nil {
		value = m.Objective.Gradient(x, grad)
	}
	m.part = append(m.part[:0], grad...)
	for k, model := range m.Limits {
		p := model.At(x)
		deviation := math.Sqrt(p.Variance)
		z := (p.Mean - m.Thresholds[k]) / deviation
		v, slope := logBelow(z)
		value += v
		model.Pull(slope/deviation, -slope*z/(2*p.Variance), nil, m.part)
		for i, g := range m.part {
			grad[i] += g
		}
	}
	return value
}
