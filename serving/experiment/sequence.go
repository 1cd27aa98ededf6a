package experiment

import (
	"math"

	"github.com/clary-ml/clary/serving/route"
)

// interval is where a difference lies, with its estimate and the evidence that it is not 0.
type interval struct {
	estimate, low, high float64
	// logE is the logarithm of the e-value: evidence that grows only if there is a difference. Its
	// reciprocal bounds the chance of ever seeing as much without one (Ville's inequality).
	logE float64
}

// nothing is what is known before anything was seen.
var nothing = interval{low: math.Inf(-1), high: math.Inf(1)}

// moments are of an arm's values: their mean, and sums of what they deviate from it, squared and cubed.
type moments struct{ n, mean, square, cube float64 }

func momentsOf(m route.Moments) moments {
	n := float64(m.N)
	mean := m.Sum / n
	return moments{n, mean, max(m.Square-m.Sum*mean, 0), m.Cube - 3*mean*m.Square + 2*mean*mean*m.Sum}
}

// skewest is how skew the distribution of a difference of means may be, by its estimate, to be taken for
// normal. Arms of as many requests cancel one another's skewness; not so a small arm beside a large one.
const skewest = 0.3

// means compares the means of two arms by a normal mixture whose width is the best after so many
// observations. The variance of the difference is the larger of two estimates: from each arm's own values, and
// from all together. Where rare large values make the mean, a small arm has none of them at first,
// and its own say that its mean is low and sure to be so; all together say that it is not sure.
func means(a, b route.Moments, alpha, expect float64) interval {
	if a.N < 2 || b.N < 2 {
		return nothing
	}
	ofA, ofB := momentsOf(a), momentsOf(b)
	n := ofA.n + ofB.n
	pooled := (ofA.square + ofB.square) / (n - 2)
	own := ofA.square/(ofA.n-1)/ofA.n + ofB.square/(ofB.n-1)/ofB.n
	square := max(own, pooled/ofA.n+pooled/ofB.n)
	skewness := math.Abs((ofA.cube+ofB.cube)/n*(1/ofB.n/ofB.n-1/ofA.n/ofA.n)) / math.Pow(square, 1.5)
	d := ofB.mean - ofA.mean
	// Sums of squares lose the variance of values that hardly differ: of those nothing is known.
	unsure := pooled <= 1e-12*(ofA.mean*ofA.mean+ofB.mean*ofB.mean)
	if unsure || !(skewness <= skewest) || math.IsInf(square, 0) || math.IsNaN(d) {
		return nothing
	}
	ratio := n * mixture(alpha, expect)
	radius := math.Sqrt(square) * width(ratio, alpha)
	return interval{
		estimate: d, low: d - radius, high: d + radius,
		logE: ratio/(ratio+1)*d*d/square/2 - math.Log1p(ratio)/2,
	}
}

// mixture is the variance of the normal mixture, in units of the observations', that makes the interval
// nearly the narrowest after so many of them (Waudby-Smith et al. on the choice of rho).
func mixture(alpha, expect float64) float64 {
	x := -2 * math.Log(alpha)
	return (x + math.Log(x+1)) / expect
}

// width is half the interval in standard errors, when there are ratio times the mixture's observations.
func width(ratio, alpha float64) float64 {
	return math.Sqrt((ratio + 1) / ratio * (math.Log1p(ratio) - 2*math.Log(alpha)))
}

// count is how many of an arm's trials were hits.
type count struct{ hits, trials int64 }

// prior is how many hits the mixture over an arm's share of them is worth: it is the sharpest where rates
// differ by a half or more.
const prior = 10.0

// ratios compares the shares of hits of two arms: interval is of the logarithm of B's over A's. Under the
// hypothesis each hit falls on B with B's share of the trials. Given the trials of both arms the number of
// B's hits is then hypergeometric, which is less spread than the binomial that is tested (Hoeffding
// 1963, theorem 4): where hits are not rare the test is cautious.
func ratios(a, b count, alpha float64) interval {
	if a.trials == 0 || b.trials == 0 || a.hits+b.hits == 0 {
		return nothing
	}
	against, odds := hypothesis(a, b)
	best := math.Log(float64(b.hits)) - math.Log(float64(a.hits))
	bound := -math.Log(alpha)
	low, high := math.Inf(-1), math.Inf(1)
	if b.hits > 0 {
		low = edge(against, bound, max(min(best, 40), -40), -1) - odds
	}
	if a.hits > 0 {
		high = edge(against, bound, max(min(best, 40), -40), 1) - odds
	}
	return interval{estimate: best - odds, low: low, high: high, logE: against(odds)}
}

// hypothesis is the evidence against logarithms of a hit's odds of falling on B, and what they are if
// arms do not differ.
func hypothesis(a, b count) (against func(logOdds float64) float64, odds float64) {
	// The mixture is centred at the share, so that an arm of few requests is not at a loss.
	share := float64(b.trials) / float64(a.trials+b.trials)
	mixed := logBetaRatio(prior*share, prior*(1-share), float64(b.hits), float64(a.hits))
	return func(logOdds float64) float64 {
		return mixed - float64(b.hits)*logSigmoid(logOdds) - float64(a.hits)*logSigmoid(-logOdds)
	}, math.Log(float64(b.trials)) - math.Log(float64(a.trials))
}

// edge is where evidence, which grows from a point on, becomes as much as a bound.
func edge(evidence func(float64) float64, bound, from, direction float64) float64 {
	far := 1.0
	for evidence(from+direction*far) < bound && far < 1e3 {
		far *= 2
	}
	near := 0.0
	for range 60 {
		if middle := (near + far) / 2; evidence(from+direction*middle) < bound {
			near = middle
		} else {
			far = middle
		}
	}
	return from + direction*far
}

// rate is a confidence sequence of one arm's share of hits, by the same mixture around what is rare.
func rate(c count, alpha float64) (low, high float64) {
	if c.trials == 0 {
		return 0, 1
	}
	hits, misses := float64(c.hits), float64(c.trials-c.hits)
	mixed := logBetaRatio(0.5, 0.5, hits, misses)
	evidence := func(logOdds float64) float64 {
		return mixed - hits*logSigmoid(logOdds) - misses*logSigmoid(-logOdds)
	}
	best := max(min(math.Log(hits)-math.Log(misses), 40), -40)
	low, high = 0, 1
	if hits > 0 {
		low = sigmoid(edge(evidence, -math.Log(alpha), best, -1))
	}
	if misses > 0 {
		high = sigmoid(edge(evidence, -math.Log(alpha), best, 1))
	}
	return low, high
}

// points is where the difference of two shares lies, from a sequence for each.
func points(a, b count, alpha float64) (low, high float64) {
	lowA, highA := rate(a, alpha/2)
	lowB, highB := rate(b, alpha/2)
	return lowB - highA, highB - lowA
}

// logBetaRatio is the logarithm of B(a+x, b+y) / B(a, b).
func logBetaRatio(a, b, x, y float64) float64 {
	return logGammaRatio(a, x) + logGammaRatio(b, y) - logGammaRatio(a+b, x+y)
}

// logGammaRatio is the logarithm of Γ(a+x) / Γ(a).
func logGammaRatio(a, x float64) float64 {
	top, _ := math.Lgamma(a + x)
	bottom, _ := math.Lgamma(a)
	return top - bottom
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func logSigmoid(x float64) float64 {
	if x < 0 {
		return x - math.Log1p(math.Exp(x))
	}
	return -math.Log1p(math.Exp(-x))
}
