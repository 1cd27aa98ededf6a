package cmaes

import (
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"

	"github.com/clary-ml/clary/tuner"
)

// keepMargins makes every dimension with levels leave the cell of its mean with at least
// the probability alpha: the margin paper's section 4, with its corrections of mean and
// stretch. cell gives the borders around a coordinate, infinite at the ends.
func (n *normal) keepMargins(cell func(i int, x float64) (from, to float64, ok bool), alpha float64) {
	alpha = min(alpha, 0.5)
	for i := range n.d {
		from, to, levels := cell(i, n.mean[i])
		if !levels {
			continue
		}
		s := n.deviation(i)
		switch {
		case math.IsInf(from, -1) && math.IsInf(to, 1):
		case math.IsInf(from, -1): // below is nothing: the border above must be near enough
			n.mean[i] = to - min(to-n.mean[i], quantile(1-alpha)*s)
		case math.IsInf(to, 1):
			n.mean[i] = from + min(n.mean[i]-from, quantile(1-alpha)*s)
		default:
			n.keepBoth(i, from, to, alpha)
		}
	}
}

// keepBoth is the case of a mean between two borders.
func (n *normal) keepBoth(i int, from, to, alpha float64) {
	s := n.deviation(i)
	low, high := tail((n.mean[i]-from)/s), tail((to-n.mean[i])/s)
	lowest, highest := max(low, alpha/2), max(high, alpha/2)
	if lowest == low && highest == high {
		return
	}
	middle := 1 - low - high
	excess := 1 - lowest - highest - middle
	room := lowest + highest + middle - 3*alpha/2
	lowest += excess / room * (lowest - alpha/2)
	highest += excess / room * (highest - alpha/2)
	a, b := quantile(1-min(lowest, 0.4999)), quantile(1-min(highest, 0.4999))
	n.stretch[i] *= (to - from) / (a + b) / s
	n.mean[i] = (from*b + to*a) / (a + b)
}

// tail is the probability above z of the standard normal.
func tail(z float64) float64 { return math.Erfc(z/math.Sqrt2) / 2 }

// quantile is where the standard normal has p below.
func quantile(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

// spent reports that the distribution is as narrow as coordinates are told apart, or so
// long in one direction that its digits run out.
func (n *normal) spent() bool {
	if n.d == 0 {
		return false
	}
	widest := 0.0
	for i := range n.d {
		widest = max(widest, n.deviation(i))
	}
	return widest < 1e-9 || floats.Max(n.roots) > 1e7*floats.Min(n.roots)
}

// gather puts the distribution where points lie: the warm start's equations 8 to 10.
func (n *normal) gather(points [][]float64) {
	if n.d == 0 || n.diagonal {
		return
	}
	const own = 0.1 // the spread that each point has of its own
	for i := range n.mean {
		n.mean[i] = 0
		for _, p := range points {
			n.mean[i] += p[i] / float64(len(points))
		}
	}
	for i := range n.d {
		for j := range n.d {
			sum := 0.0
			for _, p := range points {
				sum += (p[i] - n.mean[i]) * (p[j] - n.mean[j]) / float64(len(points))
			}
			if i == j {
				sum += own * own
			}
			n.c[i*n.d+j] = sum
		}
	}
	var factor mat.Cholesky
	if !factor.Factorize(mat.NewSymDense(n.d, append([]float64(nil), n.c...))) {
		return
	}
	n.sigma = math.Exp(factor.LogDet() / 2 / float64(n.d))
	floats.Scale(1/n.sigma/n.sigma, n.c)
	n.decompose()
}

// progress remembers when the best was found.
type progress struct {
	rounds, found int
	best          tuner.Merit
}

func (p *progress) add(batch []member) {
	p.rounds++
	if p.rounds == 1 || batch[0].merit.Compare(p.best) < 0 {
		p.best, p.found = batch[0].merit, p.rounds
	}
}

// stands reports that nothing better was found for long.
func (p *progress) stands(dims, population int) bool {
	return p.rounds-p.found >= 20+30*dims/population
}
