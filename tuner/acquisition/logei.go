// Package acquisition says how much a trial is worth, and finds the one that is worth most.
package acquisition

import "math"

var (
	logSqrt2Pi = 0.5 * math.Log(2*math.Pi)
	sqrtHalfPi = math.Sqrt(math.Pi / 2)
)

const (
	invSqrt2Pi = 0.3989422804014327
	sqrtPi     = 1.7724538509055159
)

// LogImprovement returns the logarithm of E[max(0, z+ξ)], ξ standard normal, which is
// φ(z)+zΦ(z), and its derivative. It neither underflows nor loses its derivative however
// small z is (Ament et al. 2023, "Unexpected improvements to expected improvement").
func LogImprovement(z float64) (value, slope float64) {
	switch {
	case z > -1:
		density := math.Exp(-0.5*z*z) * invSqrt2Pi
		below := 0.5 * math.Erfc(-z/math.Sqrt2)
		h := density + z*below
		return math.Log(h), below / h
	case z > -25:
		// With Φ(z) = φ(z)·m, m Mills' ratio, h = φ(z)·(1+z·m).
		ratio := mills(z)
		rest := 1 + z*ratio
		return -0.5*z*z - logSqrt2Pi + math.Log(rest), ratio / rest
	default:
		// Asymptotic: 1+z·m = z⁻²·(1 - 3z⁻² + 15z⁻⁴ - 105z⁻⁶ + 945z⁻⁸ - …).
		w := 1 / (z * z)
		series := 1 - w*(3-w*(15-w*(105-945*w)))
		return -0.5*z*z - logSqrt2Pi + math.Log(w*series), mills(z) / (w * series)
	}
}

// Cody's rational approximations (1969, "Rational Chebyshev approximations for the error
// function"), highest power first.
var (
	erfcxMiddle = [2][9]float64{
		{
			2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1, 2.98635138197400131e2,
			8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3,
		},
		{
			1, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
			3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
		},
	}
	erfcxTail = [2][6]float64{
		{
			1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
			1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4,
		},
		{1, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2, 2.33520497626869185e-3},
	}
)

// erfcx is exp(x²)·erfc(x) for x ≥ 0.5.
func erfcx(x float64) float64 {
	if x <= 4 {
		top, bottom := erfcxMiddle[0][0], erfcxMiddle[1][0]
		for i := 1; i < 9; i++ {
			top = top*x + erfcxMiddle[0][i]
			bottom = bottom*x + erfcxMiddle[1][i]
		}
		return top / bottom
	}
	w := 1 / (x * x)
	top, bottom := erfcxTail[0][0], erfcxTail[1][0]
	for i := 1; i < 6; i++ {
		top = top*w + erfcxTail[0][i]
		bottom = bottom*w + erfcxTail[1][i]
	}
	return (1/sqrtPi - w*top/bottom) / x
}
