package gp

import "math"

// Prior is what is believed of hyperparameters before any result.
type Prior struct {
	Length Density
	Scale  Density
	Noise  Density // of Rough too
	Bounds Bounds
}

// Bounds are the limits of the hyperparameters.
type Bounds struct {
	Length, Scale, Noise [2]float64
}

// DefaultPrior is the beliefs of Optuna's GPSampler (version 5) on lengthscales, scale and
// noise, which measured better on real tables than LogNormal lengthscales that grow with
// the dimensions and LogNormal noise (see DESIGN.md).
func DefaultPrior(int) Prior {
	return Prior{
		Length: Balance{0.1}, Scale: Gamma{2, 1}, Noise: Gamma{1.1, 30},
		Bounds: Bounds{
			Length: [2]float64{0.025, 100}, Scale: [2]float64{1e-3, 1e3}, Noise: [2]float64{1e-10, 10},
		},
	}
}

// DefaultHyper is where fits of d dimensions start.
func DefaultHyper(d int) Hyper {
	h := Hyper{Length: make([]float64, d), Scale: 1, Noise: math.Exp(-4), Rough: math.Exp(-4)}
	for j := range h.Length {
		h.Length[j] = 0.5 * math.Sqrt(float64(d))
	}
	return h
}

// Density is the logarithm of a density, up to a constant.
type Density interface {
	// Log takes the logarithm of a value, and returns the log density of the value with its
	// derivative by that logarithm.
	Log(log float64) (density, slope float64)
}

// Gamma is the density of Euler's gamma distribution.
type Gamma struct{ Shape, Rate float64 }

// Log implements Density.
func (p Gamma) Log(log float64) (density, slope float64) {
	v := math.Exp(log)
	return (p.Shape-1)*log - p.Rate*v, p.Shape - 1 - p.Rate*v
}

// Balance keeps lengths from being very short and very long: minus Weight times w + 1/w, w
// the inverse square.
type Balance struct{ Weight float64 }

// Log implements Density.
func (p Balance) Log(log float64) (density, slope float64) {
	w := math.Exp(-2 * log)
	return -p.Weight * (w + 1/w), 2 * p.Weight * (w - 1/w)
}
