package gp

import (
	"math"
	"slices"
)

// Transform is a monotone map of results to what a Gaussian process expects: mean 0,
// variance 1, tails that are not heavy. More is better on both sides.
type Transform uint8

const (
	// Standardize shifts and scales.
	Standardize Transform = iota
	// YeoJohnson also makes skew results near normal, by the power that is most likely (Yeo
	// and Johnson 2000).
	YeoJohnson
	// LogGap is minus the logarithm of how far a result is behind the best, in units of the
	// gap between the best and the median.
	LogGap
	// LogGapFine has a unit of a hundredth of that.
	LogGapFine
	// HalfRank replaces results below the median by normal quantiles of their rank, scaled to
	// the others (Song et al. 2024, the Vizier algorithm), and takes LogGap of them.
	HalfRank
)

// Apply returns the transformed results, and the sum of the logarithms of its derivatives
// by results in units of their range, which makes densities under different transforms
// comparable. Equal results give zeros.
func (t Transform) Apply(y []float64) (out []float64, jacobian float64) {
	out = make([]float64, len(y))
	if len(y) == 0 {
		return out, 0
	}
	scaled, ok := rescale(y)
	if !ok {
		return out, 0
	}
	logs := 0.0
	switch t {
	case YeoJohnson:
		logs += standardize(scaled)
		lambda := likeliestPower(scaled)
		for i, v := range scaled {
			scaled[i] = power(v, lambda)
			logs += powerSlope(v, lambda)
		}
	case LogGap:
		logs += logGap(scaled, 1)
	case LogGapFine:
		logs += logGap(scaled, 0.01)
	case HalfRank:
		logs += halfRank(scaled)
		logs += logGap(scaled, 1)
	}
	logs += standardize(scaled)
	copy(out, scaled)
	return out, logs
}

// rescale maps to [0,1], computed so that nothing overflows. ok is false if all are equal.
func rescale(y []float64) (scaled []float64, ok bool) {
	least, most := slices.Min(y), slices.Max(y)
	half := most/2 - least/2
	scaled = make([]float64, len(y))
	if half == 0 {
		return scaled, false
	}
	for i, v := range y {
		scaled[i] = (v/2 - least/2) / half
	}
	return scaled, true
}

// standardize in place, and return the sum of the logarithms of the slopes.
func standardize(y []float64) float64 {
	mean, n := 0.0, float64(len(y))
	for _, v := range y {
		mean += v / n
	}
	variance := 0.0
	for _, v := range y {
		variance += (v - mean) * (v - mean) / n
	}
	deviation := math.Sqrt(variance)
	if deviation < 1e-12 {
		clear(y)
		return 0
	}
	for i, v := range y {
		y[i] = (v - mean) / deviation
	}
	return -n * math.Log(deviation)
}

func power(v, lambda float64) float64 {
	switch {
	case v >= 0 && lambda == 0:
		return math.Log1p(v)
	case v >= 0:
		return math.Expm1(lambda*math.Log1p(v)) / lambda
	case lambda == 2:
		return -math.Log1p(-v)
	}
	return -math.Expm1((2-lambda)*math.Log1p(-v)) / (2 - lambda)
}

// powerSlope is the logarithm of power's derivative.
func powerSlope(v, lambda float64) float64 {
	if v >= 0 {
		return (lambda - 1) * math.Log1p(v)
	}
	return (1 - lambda) * math.Log1p(-v)
}

// likeliestPower maximizes the likelihood of independent normal results, by golden section.
func likeliestPower(y []float64) float64 {
	value := func(lambda float64) float64 {
		mean, square, logs, n := 0.0, 0.0, 0.0, float64(len(y))
		for _, v := range y {
			t := power(v, lambda)
			mean += t / n
			square += t * t / n
			logs += powerSlope(v, lambda)
		}
		return logs - 0.5*n*math.Log(math.Max(square-mean*mean, 1e-12))
	}
	const golden = 0.6180339887498949
	low, high := -2.0, 6.0
	a, b := high-golden*(high-low), low+golden*(high-low)
	fa, fb := value(a), value(b)
	for range 30 {
		if fa > fb {
			high, b, fb = b, a, fa
			a = high - golden*(high-low)
			fa = value(a)
		} else {
			low, a, fa = a, b, fb
			b = low + golden*(high-low)
			fb = value(b)
		}
	}
	return (low + high) / 2
}

func median(y []float64) float64 {
	sorted := slices.Sorted(slices.Values(y))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func logGap(y []float64, share float64) (logs float64) {
	best := slices.Max(y)
	unit := share * math.Max(best-median(y), 1e-6)
	for i, v := range y {
		y[i] = -math.Log1p((best - v) / unit)
		logs += -math.Log(unit + best - v)
	}
	return logs
}

// halfRank in place. The slope of a rank is taken from its neighbours' distance.
func halfRank(y []float64) (logs float64) {
	n := len(y)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case y[a] < y[b]:
			return -1
		case y[a] > y[b]:
			return 1
		}
		return a - b
	})
	middle, best := median(y), y[order[n-1]]
	good, count := 0.0, 0.0
	for _, v := range y {
		if v >= middle {
			good += (v - middle) * (v - middle)
			count++
		}
	}
	deviation := math.Sqrt(good / math.Max(1, count))
	if deviation == 0 {
		deviation = math.Max(best-middle, 1e-3)
	}
	old := slices.Clone(y)
	for rank, i := range order {
		if old[i] < middle {
			first := rank
			for first > 0 && old[order[first-1]] == old[i] {
				first--
			}
			y[i] = middle + deviation*math.Sqrt2*math.Erfinv(2*(float64(first)+0.5)/float64(n)-1)
		}
	}
	for rank, i := range order {
		if old[i] >= middle {
			break
		}
		next := order[min(rank+1, n-1)]
		if gap := old[next] - old[i]; gap > 0 {
			logs += math.Log((y[next] - y[i]) / gap)
		}
	}
	return logs
}
