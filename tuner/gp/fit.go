package gp

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/clary-ml/clary/tuner/lbfgs"
)

// Likelihood is the log posterior of hyperparameters given results, without its constant.
// It is not for concurrent use.
type Likelihood struct {
	dims  []Dim
	prior Prior
	y     []float64
	rough []float64 // by point, its share of Rough; nil if there is no fidelity
	n     int

	squared [][]float64 // by dimension, of pairs i > j: (1,0), (2,0), (2,1), …; unit lengthscales
	r2, dr2 []float64   // of pairs
	gram    []float64
	mean    float64
	z, a, o []float64
}

// NewLikelihood prepares the log posterior given the results y at the points x.
func NewLikelihood(dims []Dim, prior Prior, x [][]float64, y []float64) *Likelihood {
	n, d := len(x), len(dims)
	pairs := n * (n - 1) / 2
	l := &Likelihood{
		dims: dims, prior: prior, y: y, n: n,
		squared: make([][]float64, d),
		r2:      make([]float64, pairs), dr2: make([]float64, pairs), gram: make([]float64, n*n),
		z: make([]float64, n), a: make([]float64, n), o: make([]float64, n),
	}
	u := make([]float64, n)
	for j := range dims {
		for i, p := range x {
			u[i] = p[j]
		}
		l.squared[j] = make([]float64, pairs)
		l.distances(j, u)
	}
	if slices.ContainsFunc(dims, func(dim Dim) bool { return dim.Fidelity }) {
		l.rough = make([]float64, n)
		for i, p := range x {
			l.rough[i] = rough(dims, p)
		}
	}
	return l
}

// distances writes the squared distances of a dimension whose values are u.
func (l *Likelihood) distances(j int, u []float64) {
	all := l.squared[j]
	at := 0
	for i := range l.n {
		squares(l.dims[j], u[:i], u[i], 1, true, all[at:at+i])
		at += i
	}
}

// Parameters returns how many numbers Value takes: the logarithms of the lengthscales, the
// scale, the noise, and with a fidelity Rough. The mean is chosen for the best, given the
// others.
func (l *Likelihood) Parameters() int {
	if l.rough != nil {
		return len(l.dims) + 3
	}
	return len(l.dims) + 2
}

// Value returns the log posterior at theta and writes its gradient to grad. It is -Inf
// where the covariances are not positive definite.
func (l *Likelihood) Value(theta, grad []float64) float64 {
	d, n := len(l.dims), l.n
	scale, noise := math.Exp(theta[d]), math.Exp(theta[d+1])
	clear(l.r2)
	for j, squared := range l.squared {
		axpy(math.Exp(-2*theta[j]), squared, l.r2)
	}
	matern(l.r2, scale, l.dr2)
	at := 0
	for i := range n {
		copy(l.gram[i*n:], l.r2[at:at+i])
		l.gram[i*n+i] = scale + noise
		if l.rough != nil {
			l.gram[i*n+i] += l.rough[i] * math.Exp(theta[d+2])
		}
		at += i
	}
	factor := blas64.Triangular{Uplo: blas.Lower, Diag: blas.NonUnit, N: n, Stride: max(1, n), Data: l.gram}
	if _, ok := lapack64.Potrf(blas64.Symmetric{Uplo: blas.Lower, N: n, Stride: max(1, n), Data: l.gram}); !ok {
		return math.Inf(-1)
	}
	value := l.fitMean()
	for i := range n {
		value -= math.Log(l.gram[i*n+i])
	}
	lapack64.Potri(factor)
	l.gradient(theta, scale, noise, grad)
	return value + l.believe(theta, grad)
}

// fitMean chooses the mean, whose prior is standard normal, writes
// covariance⁻¹ (y - mean) to a, and returns the part of the log posterior that depends on y.
func (l *Likelihood) fitMean() float64 {
	z, o := vector(l.z), vector(l.o)
	copy(l.z, l.y)
	for i := range l.o {
		l.o[i] = 1
	}
	forward(l.gram, l.n, l.z)
	forward(l.gram, l.n, l.o)
	l.mean = blas64.Dot(o, z) / (blas64.Dot(o, o) + 1)
	axpy(-l.mean, l.o, l.z)
	value := -0.5*blas64.Dot(z, z) - 0.5*l.mean*l.mean
	copy(l.a, l.z)
	backward(l.gram, l.n, l.a)
	return value
}

// gradient of the log likelihood, given the inverse of the covariances in gram.
func (l *Likelihood) gradient(theta []float64, scale, noise float64, grad []float64) {
	d, n := len(l.dims), l.n
	at, byScale, trace, byRough := 0, 0.0, 0.0, 0.0
	for i := range n {
		row, ai := l.gram[i*n:i*n+i], l.a[i]
		pair, slope := l.r2[at:at+i], l.dr2[at:at+i]
		for j, inverse := range row {
			m := ai*l.a[j] - inverse
			byScale += m * pair[j]
			slope[j] *= m
		}
		own := ai*ai - l.gram[i*n+i]
		trace += own
		if l.rough != nil {
			byRough += own * l.rough[i]
		}
		at += i
	}
	grad[d] = byScale + 0.5*scale*trace
	grad[d+1] = 0.5 * noise * trace
	if l.rough != nil {
		grad[d+2] = 0.5 * math.Exp(theta[d+2]) * byRough
	}
	for j, squared := range l.squared {
		w := math.Exp(-2 * theta[j])
		grad[j] = -2 * w * dot(l.dr2, squared)
	}
}

// believe adds the prior's gradient to grad and returns its log density.
func (l *Likelihood) believe(theta, grad []float64) float64 {
	d := len(l.dims)
	sum := 0.0
	for i, log := range theta {
		prior := l.prior.Length
		switch i {
		case d:
			prior = l.prior.Scale
		case d + 1, d + 2: // Rough too
			prior = l.prior.Noise
		}
		value, slope := prior.Log(log)
		sum += value
		grad[i] += slope
	}
	return sum
}

// Encode returns the parameters of hyper, as Value takes them.
func (l *Likelihood) Encode(hyper Hyper) []float64 {
	d := len(l.dims)
	theta := make([]float64, l.Parameters())
	for j, v := range hyper.Length {
		theta[j] = math.Log(v)
	}
	theta[d], theta[d+1] = math.Log(hyper.Scale), math.Log(hyper.Noise)
	if l.rough != nil {
		theta[d+2] = math.Log(hyper.Rough)
	}
	return theta
}

// decode returns the hyperparameters of theta with the mean that fits them.
func (l *Likelihood) decode(theta []float64) Hyper {
	d := len(l.dims)
	h := Hyper{Length: make([]float64, d), Scale: math.Exp(theta[d]), Noise: math.Exp(theta[d+1])}
	for j := range h.Length {
		h.Length[j] = math.Exp(theta[j])
	}
	if l.rough != nil {
		h.Rough = math.Exp(theta[d+2])
	}
	return h
}

// Fit climbs the log posterior from a start, and returns the hyperparameters where it ends
// with their log posterior.
func (l *Likelihood) Fit(start Hyper, evaluations int) (Hyper, float64) {
	theta := l.Encode(start)
	lower, upper := l.bounds()
	descent := func(theta, grad []float64) float64 {
		value := -l.Value(theta, grad)
		for i := range grad {
			grad[i] = -grad[i]
		}
		return value
	}
	lbfgs.Minimize(descent, theta, lower, upper, lbfgs.Options{Evaluations: evaluations, Gradient: 1e-2, Decrease: 1e-4, Step: 1})
	value := l.Value(theta, make([]float64, len(theta)))
	hyper := l.decode(theta)
	hyper.Mean = l.mean
	return hyper, value
}

func (l *Likelihood) bounds() (lower, upper []float64) {
	d := len(l.dims)
	lower, upper = make([]float64, l.Parameters()), make([]float64, l.Parameters())
	for i := range lower {
		b := l.prior.Bounds.Length
		switch i {
		case d:
			b = l.prior.Bounds.Scale
		case d + 1, d + 2: // Rough too
			b = l.prior.Bounds.Noise
		}
		lower[i], upper[i] = math.Log(b[0]), math.Log(b[1])
	}
	return lower, upper
}

func axpy(a float64, x, y []float64) {
	blas64.Axpy(a, blas64.Vector{N: len(x), Data: x, Inc: 1}, blas64.Vector{N: len(y), Data: y, Inc: 1})
}

func dot(x, y []float64) float64 {
	return blas64.Dot(blas64.Vector{N: len(x), Data: x, Inc: 1}, blas64.Vector{N: len(y), Data: y, Inc: 1})
}
