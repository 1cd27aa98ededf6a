package acquisition_test

import (
	"math"
	"math/big"
	"testing"

	"github.com/clary-ml/clary/tuner/acquisition"
)

// exact computes log(φ(z)+zΦ(z)) for z < 0 from the continued fraction of Mills' ratio, in
// 400 bits.
func exact(z float64) float64 {
	number := func(v float64) *big.Float { return new(big.Float).SetPrec(400).SetFloat64(v) }
	x := number(-z)
	fraction := number(-z)
	for k := 3000; k >= 1; k-- { // m = 1/(x + 1/(x + 2/(x + 3/(x + …))))
		fraction = new(big.Float).SetPrec(400).Add(x, new(big.Float).SetPrec(400).Quo(number(float64(k)), fraction))
	}
	rest := new(big.Float).SetPrec(400).Quo(x, fraction)
	rest.Sub(number(1), rest)
	v, _ := rest.Float64()
	return -0.5*z*z - 0.5*math.Log(2*math.Pi) + math.Log(v)
}

func TestLogImprovementIsExactFarBelow(t *testing.T) {
	for _, z := range []float64{-1.0001, -1.5, -2, -3, -5.6, -5.7, -8, -15, -24.9, -25.1, -40, -1e3, -1e6} {
		got, _ := acquisition.LogImprovement(z)
		if want := exact(z); math.Abs(got-want) > 1e-10*math.Abs(want) {
			t.Errorf("at %g: got %.15g, want %.15g", z, got, want)
		}
	}
	for _, z := range []float64{-1e20, -1e150, 1e300} {
		if got, slope := acquisition.LogImprovement(z); math.IsNaN(got) || math.IsNaN(slope) {
			t.Errorf("at %g: %g, %g", z, got, slope)
		}
	}
}

func TestLogImprovementsSlopeAgreesWithDifferences(t *testing.T) {
	for z := -60.0; z < 10; z += 0.0371 {
		const h = 1e-5
		_, slope := acquisition.LogImprovement(z)
		high, _ := acquisition.LogImprovement(z + h)
		low, _ := acquisition.LogImprovement(z - h)
		if want := (high - low) / (2 * h); math.Abs(slope-want) > 1e-5*math.Max(1, math.Abs(want)) {
			t.Fatalf("at %g: got %g, want %g", z, slope, want)
		}
	}
}
