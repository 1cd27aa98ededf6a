package paramserver

import (
	"math"

	"github.com/clary-ml/clary/trainer/spec"
)

// update applies an optimiser to a part of the arena: w and its slots are changed, step
// counts from 1. Every operation is on one element, so that the split over servers and
// chunks makes no difference to any bit.
type update func(w, g []float32, slots [][]float32, step uint64)

func updateOf(o spec.Optimizer) update {
	switch {
	case o.Adam != nil:
		return adam(*o.Adam)
	case o.Momentum != nil:
		return momentum(*o.Momentum)
	default:
		return sgd(*o.SGD)
	}
}

func sgd(o spec.SGD) update {
	rate := float32(o.Rate)
	return func(w, g []float32, _ [][]float32, _ uint64) {
		g = g[:len(w)]
		for i := range w {
			w[i] -= rate * g[i]
		}
	}
}

// momentum is v = m v + g, w = w - rate v.
func momentum(o spec.Momentum) update {
	rate, keep := float32(o.Rate), float32(orDefault(o.Momentum, 0.9))
	return func(w, g []float32, slots [][]float32, _ uint64) {
		g, v := g[:len(w)], slots[0][:len(w)]
		for i := range w {
			v[i] = keep*v[i] + g[i]
			w[i] -= rate * v[i]
		}
	}
}

// adam is Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, with the
// order of operations of the end of section 2.
func adam(o spec.Adam) update {
	beta1, beta2 := orDefault(o.Beta1, 0.9), orDefault(o.Beta2, 0.999)
	b1, b2, epsilon := float32(beta1), float32(beta2), float32(orDefault(o.Epsilon, 1e-8))
	return func(w, g []float32, slots [][]float32, step uint64) {
		root := math.Sqrt(1 - math.Pow(beta2, float64(step)))
		rate := float32(o.Rate * root / (1 - math.Pow(beta1, float64(step))))
		e := epsilon * float32(root)
		g, m, v := g[:len(w)], slots[0][:len(w)], slots[1][:len(w)]
		for i, d := range g {
			m[i] = b1*m[i] + (1-b1)*d
			v[i] = b2*v[i] + (1-b2)*d*d
			w[i] -= rate * m[i] / (float32(math.Sqrt(float64(v[i]))) + e)
		}
	}
}

func orDefault(v, fallback float64) float64 {
	if v == 0 {
		return fallback
	}
	return v
}
