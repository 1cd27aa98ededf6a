package gp

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"
)

const (
	jitterLeast = 1e-9 // of Scale, added to the diagonal when it is not positive definite
	jitterMost  = 1e-2
	block       = 128   // points predicted together
	leastShare  = 1e-12 // of Scale: no variance is less
)

// Model is a Gaussian process conditioned on results, and on where results are still to
// come. It is not for concurrent use: predicting uses its memory.
type Model struct {
	dims    []Dim
	hyper   Hyper
	weights []float64
	n       int         // results
	total   int         // results and pending points
	columns [][]float64 // embedded points, by dimension
	gaps    []bool      // the dimension has points to which it does not apply
	noise   []float64   // of the results

	factor []float64 // lower Cholesky factor of the covariances, stride wide
	stride int
	shift  []float64 // factor⁻¹ (y - mean), of the results
	alpha  []float64 // covariance⁻¹ (y - mean), of the results
	jitter float64

	k, slope, v, c []float64 // scratch of At and Pull
	u              []float64
	wide           []float64 // scratch of Predict
}

// Condition returns the posterior given the results y at the points x. Jitter is added as
// needed, so that it always succeeds on finite input.
func Condition(dims []Dim, hyper Hyper, x [][]float64, y []float64, room int) *Model {
	n, d := len(x), len(dims)
	m := &Model{
		dims: dims, hyper: hyper, weights: hyper.weights(), n: n, total: n, stride: max(1, n+room),
		columns: make([][]float64, d), gaps: make([]bool, d), noise: make([]float64, n), u: make([]float64, d),
	}
	for j := range m.columns {
		m.columns[j] = make([]float64, n, m.stride)
	}
	for i, p := range x {
		hyper.embed(dims, p, m.u)
		m.noise[i] = hyper.NoiseAt(dims, p)
		for j, v := range m.u {
			m.columns[j][i] = v
			m.gaps[j] = m.gaps[j] || v != v
		}
	}
	m.grow()
	m.factorize()
	m.solve(y)
	return m
}

// grow makes the scratch fit stride.
func (m *Model) grow() {
	s := m.stride
	flat := make([]float64, 4*s)
	m.k, m.slope, m.v, m.c = flat[:s], flat[s:2*s], flat[2*s:3*s], flat[3*s:]
}

func (m *Model) factorize() {
	n, s := m.n, m.stride
	gram := make([]float64, n*s)
	for i := range n {
		row := gram[i*s : i*s+i]
		for j, column := range m.columns {
			squares(m.dims[j], column[:i], column[i], m.weights[j], m.gaps[j], row)
		}
		matern(row, m.hyper.Scale, nil)
	}
	m.factor = make([]float64, s*s)
	for {
		for i := range n {
			copy(m.factor[i*s:i*s+i], gram[i*s:i*s+i])
			m.factor[i*s+i] = m.hyper.Scale + m.noise[i] + m.jitter
		}
		_, ok := lapack64.Potrf(blas64.Symmetric{Uplo: blas.Lower, N: n, Stride: s, Data: m.factor})
		if ok || n == 0 || m.jitter > jitterMost*m.hyper.Scale {
			return
		}
		m.jitter = math.Max(10*m.jitter, jitterLeast*m.hyper.Scale)
	}
}

// Results replaces the results by y, at the same points.
func (m *Model) Results(y []float64) { m.solve(y) }

func (m *Model) solve(y []float64) {
	m.shift = make([]float64, m.n)
	for i, v := range y {
		m.shift[i] = v - m.hyper.Mean
	}
	forward(m.factor, m.stride, m.shift)
	m.alpha = append([]float64(nil), m.shift...)
	backward(m.factor, m.stride, m.alpha)
}

func (m *Model) triangle(n int) blas64.Triangular {
	return blas64.Triangular{Uplo: blas.Lower, Diag: blas.NonUnit, N: n, Stride: m.stride, Data: m.factor}
}

// Append adds a point whose result is not known: it takes away variance around it, and
// leaves the mean as it is. Its row of the factor costs O(n²).
func (m *Model) Append(x []float64) {
	if m.total == m.stride {
		m.widen()
	}
	m.At(x)
	n, s := m.total, m.stride
	row := m.factor[n*s : n*s+n+1]
	copy(row, m.v[:n])
	rest := m.hyper.Scale + m.hyper.NoiseAt(m.dims, x) + m.jitter
	for _, v := range row[:n] {
		rest -= v * v
	}
	row[n] = math.Sqrt(math.Max(rest, math.Max(m.hyper.Noise, jitterLeast*m.hyper.Scale)))
	for j, v := range m.u {
		m.columns[j] = append(m.columns[j], v)
		m.gaps[j] = m.gaps[j] || v != v
	}
	m.total++
}

func (m *Model) widen() {
	old, s := m.factor, m.stride
	m.stride = 2*s + 8
	m.factor = make([]float64, m.stride*m.stride)
	for i := range m.total {
		copy(m.factor[i*m.stride:], old[i*s:i*s+i+1])
	}
	m.grow()
}

// Forget takes the last count appended points away again.
func (m *Model) Forget(count int) {
	m.total -= count
	for j := range m.columns {
		m.columns[j] = m.columns[j][:m.total]
	}
}

// Pending returns the number of appended points.
func (m *Model) Pending() int { return m.total - m.n }

// Hyper returns the hyperparameters.
func (m *Model) Hyper() Hyper { return m.hyper }

// Prediction is the posterior at a point.
type Prediction struct {
	Mean     float64 // given the results
	Variance float64 // of the function, given the results and the pending points
	// Tail is by how much the mean moves for each standard normal draw that decides a pending
	// result: the mean given those results is Mean + Tail·draws.
	Tail []float64
}

// At predicts at x. Tail is overwritten by the next call.
func (m *Model) At(x []float64) Prediction {
	m.hyper.embed(m.dims, x, m.u)
	k := m.k[:m.total]
	clear(k)
	for j, column := range m.columns {
		squares(m.dims[j], column, m.u[j], m.weights[j], m.gaps[j], k)
	}
	matern(k, m.hyper.Scale, m.slope)
	v := m.v[:m.total]
	copy(v, k)
	forward(m.factor, m.stride, v)
	mean, variance := m.hyper.Mean, m.hyper.Scale
	for i, a := range m.alpha {
		mean += a * k[i]
	}
	for _, t := range v {
		variance -= t * t
	}
	return Prediction{mean, math.Max(variance, leastShare*m.hyper.Scale), v[m.n:]}
}

// Pull writes to grad the gradient, by the point of the last call of At, of
// byMean·Mean + byVariance·Variance + byTail·Tail. Categorical dimensions and those that
// do not apply get 0.
func (m *Model) Pull(byMean, byVariance float64, byTail, grad []float64) {
	c := m.c[:m.total]
	for i, v := range m.v[:m.total] {
		c[i] = -2 * byVariance * v
	}
	for i, t := range byTail {
		c[m.n+i] += t
	}
	backward(m.factor, m.stride, c)
	for i, a := range m.alpha {
		c[i] += byMean * a
	}
	for i, s := range m.slope[:m.total] {
		c[i] *= s
	}
	for j, column := range m.columns {
		grad[j] = 0
		u := m.u[j]
		if m.dims[j].Categorical || m.dims[j].Fidelity || u != u {
			continue
		}
		sum := 0.0
		for i, v := range column {
			if t := u - v; t == t {
				sum += c[i] * t
			}
		}
		grad[j] = 2 * sum / m.hyper.Length[j]
	}
}

// Predictions are of many points together.
type Predictions struct {
	Mean, Variance []float64
	Tail           []float64 // by point, Pending numbers each
}

// Predict predicts at each of the points.
func (m *Model) Predict(points [][]float64) Predictions {
	p := Predictions{
		Mean: make([]float64, len(points)), Variance: make([]float64, len(points)),
		Tail: make([]float64, len(points)*m.Pending()),
	}
	if len(m.wide) < m.total*block {
		m.wide = make([]float64, m.stride*block)
	}
	columns := make([]float64, block*len(m.dims))
	for from := 0; from < len(points); from += block {
		m.predict(points[from:min(from+block, len(points))], from, columns, p)
	}
	return p
}

func (m *Model) predict(points [][]float64, from int, columns []float64, p Predictions) {
	width := len(points)
	gaps := make([]bool, len(m.dims))
	for c, x := range points {
		m.hyper.embed(m.dims, x, m.u)
		for j, v := range m.u {
			columns[j*block+c] = v
			gaps[j] = gaps[j] || v != v
		}
	}
	mean, variance := p.Mean[from:from+width], p.Variance[from:from+width]
	for c := range mean {
		mean[c], variance[c] = m.hyper.Mean, m.hyper.Scale
	}
	wide := m.wide[:m.total*width]
	clear(wide)
	for i := range m.total {
		row := wide[i*width : (i+1)*width]
		for j, column := range m.columns {
			squares(m.dims[j], columns[j*block:j*block+width], column[i], m.weights[j], gaps[j], row)
		}
		matern(row, m.hyper.Scale, nil)
		if i < m.n {
			a := m.alpha[i]
			for c, k := range row {
				mean[c] += a * k
			}
		}
	}
	blas64.Trsm(blas.Left, blas.NoTrans, 1, m.triangle(m.total), blas64.General{Rows: m.total, Cols: width, Stride: width, Data: wide})
	for i := range m.total {
		row := wide[i*width : (i+1)*width]
		for c, v := range row {
			variance[c] -= v * v
		}
		if i >= m.n {
			for c, v := range row {
				p.Tail[(from+c)*m.Pending()+i-m.n] = v
			}
		}
	}
	for c, v := range variance {
		variance[c] = math.Max(v, leastShare*m.hyper.Scale)
	}
}

// LeaveOneOut predicts each result from the others, noise included in the variance
// (Rasmussen and Williams 2006, 5.4.2).
func (m *Model) LeaveOneOut(y []float64) (mean, variance []float64) {
	n, s := m.n, m.stride
	inverse := make([]float64, n*n)
	for i := range n {
		copy(inverse[i*n:i*n+i+1], m.factor[i*s:i*s+i+1])
	}
	lapack64.Trtri(blas64.Triangular{Uplo: blas.Lower, Diag: blas.NonUnit, N: n, Stride: n, Data: inverse})
	diagonal := make([]float64, n)
	for i := range n {
		for j, v := range inverse[i*n : i*n+i+1] {
			diagonal[j] += v * v
		}
	}
	mean, variance = make([]float64, n), make([]float64, n)
	for i, p := range diagonal {
		mean[i], variance[i] = y[i]-m.alpha[i]/p, 1/p
	}
	return mean, variance
}
