// Package gp is Gaussian process regression for tuning: what is known of an objective from
// the trials that have ended, with how sure that is.
//
// Inputs are points of [0,1]^d, one number a dimension: numeric dimensions are compared by
// difference, categorical ones by whether they are the same (Hamming), and NaN says that a
// dimension does not apply to a point, as a parameter under a condition that does not hold.
// Outputs are expected standardized (see Transform). The kernel is Matérn-5/2 with a
// lengthscale per dimension; hyperparameters are the most probable ones under weak priors
// (Fit). A Model is the posterior under given hyperparameters; points whose result is
// still to come are appended to it, in O(n²) each.
//
// Everything is a function of its arguments: no clock, no chance, no goroutine.
package gp

import (
	"math"
)

// Dim says how points are compared in a dimension.
type Dim struct {
	Categorical bool // equal or not, instead of by difference
	// Fidelity is how far a trial went, 1 all the way: points are not compared by it, but
	// results from below 1 have more noise.
	Fidelity bool
}

// Hyper are the hyperparameters of a Gaussian process.
type Hyper struct {
	Length []float64 // lengthscale per dimension
	Scale  float64   // prior variance of the function
	Noise  float64   // variance of an observation's noise
	Rough  float64   // what is added to Noise at the fidelity 0, and in proportion up to 1
	Mean   float64   // prior mean
}

// weights are the inverse squared lengthscales.
func (h Hyper) weights() []float64 {
	w := make([]float64, len(h.Length))
	for j, l := range h.Length {
		w[j] = 1 / (l * l)
	}
	return w
}

// NoiseAt is the variance of the noise of a result at a point.
func (h Hyper) NoiseAt(dims []Dim, x []float64) float64 { return h.Noise + h.Rough*rough(dims, x) }

// rough is the share of Rough in the noise at a point.
func rough(dims []Dim, x []float64) float64 {
	for j, dim := range dims {
		if dim.Fidelity {
			return 1 - x[j]
		}
	}
	return 0
}

// embed writes x, as the kernel compares it, to u: divided by the lengthscale where numeric.
func (h Hyper) embed(dims []Dim, x, u []float64) {
	for j, v := range x {
		if !dims[j].Categorical {
			v /= h.Length[j]
		}
		u[j] = v
	}
}

// squares adds the squared distances between the value u and each of column to r2.
// far is the distance of different categories, and of a value that applies from one that
// does not.
func squares(dim Dim, column []float64, u, far float64, gaps bool, r2 []float64) {
	r2 = r2[:len(column)]
	switch {
	case dim.Fidelity: // not compared
	case u != u:
		for i, v := range column {
			if v == v {
				r2[i] += far
			}
		}
	case dim.Categorical:
		for i, v := range column {
			if v != u { // also where v is NaN
				r2[i] += far
			}
		}
	case gaps:
		for i, v := range column {
			t := v - u
			t *= t
			if v != v {
				t = far
			}
			r2[i] += t
		}
	default:
		for i, v := range column {
			t := v - u
			r2[i] += t * t
		}
	}
}

// matern replaces squared distances by Matérn-5/2 covariances, and writes their
// derivatives by the squared distance to slope unless that is nil.
func matern(r2 []float64, scale float64, slope []float64) {
	if slope == nil {
		for i, v := range r2 {
			q := math.Sqrt(5 * v)
			r2[i] = scale * (1 + q + q*q*(1.0/3)) * exp(-q)
		}
		return
	}
	slope = slope[:len(r2)]
	for i, v := range r2 {
		q := math.Sqrt(5 * v)
		e := scale * exp(-q)
		r2[i] = (1 + q + q*q*(1.0/3)) * e
		slope[i] = (-5.0 / 6) * (1 + q) * e
	}
}
