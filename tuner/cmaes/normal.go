package cmaes

import (
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/clary-ml/clary/tuner/chance"
)

// wholeDims is up to how many dimensions the covariance is kept whole; above only its
// diagonal: R. Ros and N. Hansen, "A Simple Modification in CMA-ES Achieving Linear Time
// and Space Complexity", PPSN 2008.
const wholeDims = 50

// normal is the distribution N(mean, sigma^2 C) with what adapts it. The names are those
// of the tutorial.
type normal struct {
	d          int
	population int
	mean       []float64
	sigma      float64
	c          []float64 // d*d, or d if diagonal
	stretch    []float64 // of each dimension, by the margins
	ps, pc     []float64
	diagonal   bool
	rounds     int

	positive           []float64 // weights of the better half
	negative           []float64 // of the others, below 0
	mueff              float64
	cs, damps          float64
	cc, c1, cmu        float64
	chi                float64
	vectors            *mat.Dense // B
	roots              []float64  // D
	sinceDecomposition int
}

func newNormal(mean []float64, sigma float64, population int) *normal {
	d := len(mean)
	n := &normal{d: d, population: population, mean: mean, sigma: sigma, diagonal: d > wholeDims}
	n.ps, n.pc, n.roots, n.stretch = make([]float64, d), make([]float64, d), make([]float64, d), make([]float64, d)
	n.c = make([]float64, d)
	if !n.diagonal {
		n.c = make([]float64, d*d)
	}
	for i := range d {
		*n.variance(i) = 1
		n.stretch[i] = 1
	}
	n.weigh()
	n.decompose()
	return n
}

// variance is C's diagonal.
func (n *normal) variance(i int) *float64 {
	if n.diagonal {
		return &n.c[i]
	}
	return &n.c[i*n.d+i]
}

// weigh sets weights and rates, the tutorial's equations 49 to 58.
func (n *normal) weigh() {
	d, lambda := float64(max(n.d, 1)), n.population
	mu := lambda / 2
	raw := make([]float64, lambda)
	var good, goodSquares, bad, badSquares float64
	for i := range raw {
		raw[i] = math.Log(float64(lambda+1)/2) - math.Log(float64(i+1))
		if i < mu {
			good, goodSquares = good+raw[i], goodSquares+raw[i]*raw[i]
		} else {
			bad, badSquares = bad+raw[i], badSquares+raw[i]*raw[i]
		}
	}
	n.mueff = good * good / goodSquares
	mueffBad := bad * bad / badSquares
	n.c1 = 2 / ((d+1.3)*(d+1.3) + n.mueff)
	n.cmu = min(1-n.c1, 2*(n.mueff-2+1/n.mueff)/((d+2)*(d+2)+n.mueff))
	if n.diagonal {
		n.c1, n.cmu = min(1, n.c1*(d+2)/3), min(1-n.c1, n.cmu*(d+2)/3)
		n.cmu = min(n.cmu, 1-n.c1)
	}
	n.cc = (4 + n.mueff/d) / (d + 4 + 2*n.mueff/d)
	n.cs = (n.mueff + 2) / (d + n.mueff + 5)
	n.damps = 1 + 2*max(0, math.Sqrt((n.mueff-1)/(d+1))-1) + n.cs
	n.chi = math.Sqrt(d) * (1 - 1/(4*d) + 1/(21*d*d))
	scale := min(1+n.c1/max(n.cmu, 1e-12), 1+2*mueffBad/(n.mueff+2), (1-n.c1-n.cmu)/(d*max(n.cmu, 1e-12)))
	for i, w := range raw {
		if i < mu {
			n.positive = append(n.positive, w/good)
		} else {
			n.negative = append(n.negative, scale*w/math.Abs(bad))
		}
	}
}

// decompose works out C = B D^2 B^T. What rounding made negative is lifted.
func (n *normal) decompose() {
	n.sinceDecomposition = 0
	if n.diagonal || n.d == 0 {
		for i := range n.roots {
			n.roots[i] = math.Sqrt(max(n.c[i], 1e-30))
		}
		return
	}
	var eigen mat.EigenSym
	if !eigen.Factorize(mat.NewSymDense(n.d, append([]float64(nil), n.c...)), true) {
		for i := range n.c { // no digits are left: begin with a ball again
			n.c[i] = 0
		}
		for i := range n.d {
			*n.variance(i) = 1
		}
		eigen.Factorize(mat.NewSymDense(n.d, append([]float64(nil), n.c...)), true)
	}
	n.vectors = &mat.Dense{}
	eigen.VectorsTo(n.vectors)
	for i, v := range eigen.Values(nil) {
		n.roots[i] = math.Sqrt(max(v, 1e-30))
	}
}

// times is B diag(scale) B^T y, or B diag(scale) y if straight.
func (n *normal) times(y []float64, scale func(root float64) float64, straight bool) []float64 {
	out := make([]float64, n.d)
	if n.diagonal {
		for i := range out {
			out[i] = scale(n.roots[i]) * y[i]
		}
		return out
	}
	for k := range n.d {
		along := y[k]
		if !straight {
			along = 0
			for i := range n.d {
				along += n.vectors.At(i, k) * y[i]
			}
		}
		along *= scale(n.roots[k])
		for i := range n.d {
			out[i] += n.vectors.At(i, k) * along
		}
	}
	return out
}

// whiten is C^-1/2 y.
func (n *normal) whiten(y []float64) []float64 {
	return n.times(y, func(root float64) float64 { return 1 / root }, false)
}

// draw hands out the coordinates of a point. What lies outside [0,1] is put on the edge:
// drawing it again would keep the distribution away from optima that lie there.
func (n *normal) draw(r *chance.Rand, wide float64, set func(i int, x float64)) {
	z := make([]float64, n.d)
	for i := range z {
		z[i] = wide * r.NormFloat64()
	}
	if n.d == 0 {
		return
	}
	for i, y := range n.times(z, func(root float64) float64 { return root }, true) {
		set(i, min(max(n.mean[i]+n.sigma*n.stretch[i]*y, 0), 1))
	}
}

// deviation is the standard deviation of coordinate i.
func (n *normal) deviation(i int) float64 {
	return n.sigma * n.stretch[i] * math.Sqrt(*n.variance(i))
}

// drawWithin is a step from the mean along dimension i, in units of sigma, to somewhere
// between two coordinates.
func (n *normal) drawWithin(r *chance.Rand, i int, from, to float64) float64 {
	s := n.deviation(i) * math.Sqrt2
	a, b := (from-n.mean[i])/s, (to-n.mean[i])/s
	u := r.Float64()
	var z float64
	switch {
	case a > 5: // so far out that the near edge is all there is
		z = a
	case b < -5:
		z = b
	default:
		low, high := math.Erf(a), math.Erf(b)
		z = math.Erfinv(min(max(low+u*(high-low), -1+1e-15), 1-1e-15))
	}
	return z * s / n.sigma / n.stretch[i]
}

// update is one generation: steps are sorted, the best first.
func (n *normal) update(steps [][]float64) {
	if n.d == 0 {
		return
	}
	d := float64(n.d)
	white := make([]float64, len(steps)) // squared lengths
	longest := math.Sqrt(d) + 2*d/(d+2)
	for i, y := range steps {
		w := 0.0
		for _, v := range n.whiten(y) {
			w += v * v
		}
		// A trial from long ago or by hand must not throw the distribution about: N.
		// Hansen, "Injecting External Solutions Into CMA-ES", arXiv 1110.4181.
		if length := math.Sqrt(w); length > longest {
			for k := range y {
				y[k] *= longest / length
			}
			w = longest * longest
		}
		white[i] = w
	}
	mean := make([]float64, n.d)
	for i, weight := range n.positive {
		for k := range mean {
			mean[k] += weight * steps[i][k]
		}
	}
	for k := range mean {
		n.mean[k] = min(max(n.mean[k]+n.sigma*n.stretch[k]*mean[k], 0), 1)
	}
	n.rounds++
	length := 0.0
	for k, v := range n.whiten(mean) {
		n.ps[k] = (1-n.cs)*n.ps[k] + math.Sqrt(n.cs*(2-n.cs)*n.mueff)*v
		length += n.ps[k] * n.ps[k]
	}
	length = math.Sqrt(length)
	moving := 0.0
	if length/math.Sqrt(1-math.Pow(1-n.cs, 2*float64(n.rounds+1))) < (1.4+2/(d+1))*n.chi {
		moving = 1
	}
	for k := range n.pc {
		n.pc[k] = (1-n.cc)*n.pc[k] + moving*math.Sqrt(n.cc*(2-n.cc)*n.mueff)*mean[k]
	}
	n.adapt(steps, white, moving)
	n.sigma *= math.Exp(min(1, n.cs/n.damps*(length/n.chi-1)))
	n.sigma = min(n.sigma, 1)
	if n.sinceDecomposition++; float64(n.sinceDecomposition) >= 1/(n.c1+n.cmu)/d/10 {
		n.decompose()
	}
}

// adapt is the update of C.
func (n *normal) adapt(steps [][]float64, white []float64, moving float64) {
	weights := append(append([]float64(nil), n.positive...), n.negative...)
	sum := 0.0
	for i, w := range weights {
		sum += w
		if w < 0 {
			weights[i] *= float64(n.d) / max(white[i], 1e-12)
		}
	}
	keep := 1 + n.c1*(1-moving)*n.cc*(2-n.cc) - n.c1 - n.cmu*sum
	for i := range n.d {
		for j := range i + 1 {
			if n.diagonal && j != i {
				continue
			}
			rank := 0.0
			for k, w := range weights {
				rank += w * steps[k][i] * steps[k][j]
			}
			if n.diagonal {
				n.c[i] = keep*n.c[i] + n.c1*n.pc[i]*n.pc[i] + n.cmu*rank
				continue
			}
			v := keep*n.c[i*n.d+j] + n.c1*n.pc[i]*n.pc[j] + n.cmu*rank
			n.c[i*n.d+j], n.c[j*n.d+i] = v, v
		}
	}
}
