// Package bbob is the 24 noiseless functions of the black-box optimisation benchmark:
// N. Hansen, S. Finck, R. Ros and A. Auger, "Real-Parameter Black-Box Optimization
// Benchmarking 2009: Noiseless Functions Definitions", INRIA RR-6829. Instances agree with
// those of the COCO platform, to rounding.
package bbob

import (
	"fmt"
	"math"

	"github.com/clary-ml/clary/internal/fault"
)

// Functions is how many functions there are, numbered from 1.
const Functions = 24

// Function is one instance of a function in some number of dimensions. Its box is
// [-5, 5]. It never changes.
type Function struct {
	number, dims int
	optimum      float64
	at           []float64 // where the optimum is
	value        func(x []float64) float64
}

// New makes an instance of function 1 to 24 in 2 or more dimensions.
func New(number, instance, dims int) (*Function, error) {
	if number < 1 || number > Functions {
		return nil, fault.New(fault.Invalid, "function %d: there are functions 1 to %d", number, Functions)
	}
	if dims < 2 || instance < 1 {
		return nil, fault.New(fault.Invalid, "instance %d in %d dimensions: both begin at 1 and 2", instance, dims)
	}
	seed := number
	switch number { // two share their seed with another
	case 4:
		seed = 3
	case 18:
		seed = 17
	}
	seed += 10000 * instance
	f := &Function{number: number, dims: dims, at: optimumAt(seed, dims), optimum: optimum(seed)}
	f.value = builders[number-1](setting{f: f, d: dims, seed: seed, at: f.at})
	return f, nil
}

// String names the function, as in "f08".
func (f *Function) String() string { return fmt.Sprintf("f%02d", f.number) }

// Optimum is the least value of the function in its box.
func (f *Function) Optimum() float64 { return f.optimum }

// At is where the optimum is. The caller must not change it.
func (f *Function) At() []float64 { return f.at }

// Value is the function at x, which has as many coordinates as the function has dimensions.
func (f *Function) Value(x []float64) float64 { return f.value(x) + f.optimum }

// setting is what a function is built from.
type setting struct {
	f       *Function
	d, seed int
	at      []float64
}

// share is i/(d-1).
func (s setting) share(i int) float64 { return float64(i) / float64(s.d-1) }

// shifted is x - at.
func (s setting) shifted(x []float64) []float64 {
	z := make([]float64, s.d)
	for i := range z {
		z[i] = x[i] - s.at[i]
	}
	return z
}

// optimum draws the value of an instance's optimum.
func optimum(seed int) float64 {
	a, b := normals(1, seed)[0], normals(1, seed+1)[0]
	return min(1000, max(-1000, math.Floor(100*100*a/b+0.5)/100))
}

// optimumAt draws where an instance's optimum is.
func optimumAt(seed, dims int) []float64 {
	x := uniforms(dims, seed)
	for i := range x {
		if x[i] = 8*math.Floor(1e4*x[i])/1e4 - 4; x[i] == 0 {
			x[i] = -1e-5
		}
	}
	return x
}

// uniforms is the benchmark's own generator: Park and Miller's with a shuffle of 32.
func uniforms(n, seed int) []float64 {
	state := int64(max(seed, -seed, 1))
	step := func() {
		quotient := state / 127773
		state = 16807*(state-quotient*127773) - 2836*quotient
		if state < 0 {
			state += 2147483647
		}
	}
	var shuffle [32]int64
	for i := 39; i >= 0; i-- {
		step()
		if i < 32 {
			shuffle[i] = state
		}
	}
	drawn := shuffle[0]
	r := make([]float64, n)
	for i := range r {
		step()
		at := drawn / 67108865
		drawn = shuffle[at]
		shuffle[at] = state
		if r[i] = float64(drawn) / 2.147483647e9; r[i] == 0 {
			r[i] = 1e-99
		}
	}
	return r
}

// normals are drawn by the Box-Muller transform.
func normals(n, seed int) []float64 {
	u := uniforms(2*n, seed)
	g := make([]float64, n)
	for i := range g {
		if g[i] = math.Sqrt(-2*math.Log(u[i])) * math.Cos(2*math.Pi*u[n+i]); g[i] == 0 {
			g[i] = 1e-99
		}
	}
	return g
}

type matrix [][]float64

// rotation is an orthogonal matrix, by Gram-Schmidt on normals.
func rotation(seed, d int) matrix {
	g := normals(d*d, seed)
	b := make(matrix, d)
	for i := range b {
		b[i] = make([]float64, d)
		for j := range b[i] {
			b[i][j] = g[j*d+i]
		}
	}
	for i := range d {
		for j := range i {
			product := 0.0
			for k := range d {
				product += b[k][i] * b[k][j]
			}
			for k := range d {
				b[k][i] -= product * b[k][j]
			}
		}
		norm := 0.0
		for k := range d {
			norm += b[k][i] * b[k][i]
		}
		for k := range d {
			b[k][i] /= math.Sqrt(norm)
		}
	}
	return b
}

func (m matrix) times(x []float64) []float64 {
	y := make([]float64, len(m))
	for i := range m {
		for j, v := range m[i] {
			y[i] += v * x[j]
		}
	}
	return y
}

// oscillate is T_osz of the definitions, for one coordinate.
func oscillate(v float64) float64 {
	switch {
	case v > 0:
		t := math.Log(v) / 0.1
		return math.Pow(math.Exp(t+0.49*(math.Sin(t)+math.Sin(0.79*t))), 0.1)
	case v < 0:
		t := math.Log(-v) / 0.1
		return -math.Pow(math.Exp(t+0.49*(math.Sin(0.55*t)+math.Sin(0.31*t))), 0.1)
	}
	return v
}

func oscillateAll(x []float64) []float64 {
	for i, v := range x {
		x[i] = oscillate(v)
	}
	return x
}

// skew is T_asy of the definitions.
func (s setting) skew(beta float64, x []float64) []float64 {
	for i, v := range x {
		if v > 0 {
			x[i] = math.Pow(v, 1+beta*s.share(i)*math.Sqrt(v))
		}
	}
	return x
}

// stretch multiplies by the diagonal matrix Lambda of the definitions.
func (s setting) stretch(condition float64, x []float64) []float64 {
	for i := range x {
		x[i] *= math.Pow(condition, 0.5*s.share(i))
	}
	return x
}

// outside is f_pen of the definitions: the squared distance to the box.
func outside(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		if over := math.Abs(v) - 5; over > 0 {
			sum += over * over
		}
	}
	return sum
}
