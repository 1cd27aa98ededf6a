package space

import "math"

// warp is a monotone map of a scale with its inverse and where it is defined.
type warp struct {
	to, from func(float64) float64
	slope    func(v float64) float64 // of from, at the value v
	domain   string
	within   func(float64) bool
}

var warps = map[Scale]warp{
	Linear: {
		to: func(v float64) float64 { return v }, from: func(t float64) float64 { return t },
		slope:  func(float64) float64 { return 1 },
		within: func(float64) bool { return true },
	},
	Log: {
		to: math.Log, from: math.Exp,
		slope:  func(v float64) float64 { return v },
		domain: "above 0", within: func(v float64) bool { return v > 0 },
	},
	ReverseLog: {
		to: func(v float64) float64 { return -math.Log1p(-v) }, from: func(t float64) float64 { return -math.Expm1(-t) },
		slope:  func(v float64) float64 { return 1 - v },
		domain: "from 0 to below 1", within: func(v float64) bool { return v >= 0 && v < 1 },
	},
	Logit: {
		to: func(v float64) float64 { return math.Log(v) - math.Log1p(-v) }, from: func(t float64) float64 { return 1 / (1 + math.Exp(-t)) },
		slope:  func(v float64) float64 { return v * (1 - v) },
		domain: "between 0 and 1", within: func(v float64) bool { return v > 0 && v < 1 },
	},
}

// axis maps the values of a numeric parameter to [0,1].
type axis struct {
	low, high, step float64 // step 0: continuous
	levels          int     // 0: continuous
	digits          float64 // 10^k: levels are rounded to k decimals; 0 does not round
	warp            warp
	from, width     float64 // of [0,1] on the warped scale
}

// newAxis expects checked bounds. On a grid, [0,1] reaches half a gap beyond the first and
// the last level, so that on a linear scale each level owns the same share of it.
func newAxis(low, high, step float64, levels int, scale Scale) axis {
	if scale == "" {
		scale = Linear
	}
	a := axis{low: low, high: high, step: step, levels: levels, warp: warps[scale]}
	if step > 0 {
		a.digits = decimals(low, step)
	}
	from, to := a.warp.to(low), a.warp.to(high)
	if levels > 1 {
		to = a.warp.to(a.level(levels - 1))
		first := a.warp.to(a.level(1)) - from
		last := to - a.warp.to(a.level(levels-2))
		from -= first / 2
		to += last / 2
	}
	a.from, a.width = from, to-from
	return a
}

// decimals finds the power of ten that makes low and step whole, so that 0.1+2*0.1 can be
// rounded to 0.3; 0 if there is none.
func decimals(low, step float64) float64 {
	for power := 1.0; power <= 1e12; power *= 10 {
		if wholeTimes(low, power) && wholeTimes(step, power) {
			return power
		}
	}
	return 0
}

func wholeTimes(v, power float64) bool {
	scaled := v * power
	return math.Abs(scaled) < maxWhole && math.Abs(scaled-math.Round(scaled)) <= 1e-9*max(1, math.Abs(scaled))
}

// level is the value of level k.
func (a axis) level(k int) float64 {
	v := a.low + float64(k)*a.step
	if a.digits > 0 && math.Abs(v*a.digits) < maxWhole {
		v = math.Round(v*a.digits) / a.digits
	}
	return v
}

// levelOf is the level whose value is nearest on the parameter's own scale, linear.
func (a axis) levelOf(v float64) int {
	k := math.Round((v - a.low) / a.step)
	return int(min(max(k, 0), float64(a.levels-1)))
}

// unit is where a value lies in [0,1].
func (a axis) unit(v float64) float64 {
	if a.width == 0 {
		return 0.5
	}
	return min(max((a.warp.to(v)-a.from)/a.width, 0), 1)
}

// nearest is the level whose place in [0,1] is nearest to x.
func (a axis) nearest(x float64) int {
	v := a.warp.from(a.from + x*a.width)
	k := (v - a.low) / a.step
	lower := int(min(max(math.Floor(k), 0), float64(a.levels-1)))
	if lower+1 < a.levels && math.Abs(a.unit(a.level(lower+1))-x) < math.Abs(a.unit(a.level(lower))-x) {
		return lower + 1
	}
	return lower
}

// value is what lies at x of [0,1].
func (a axis) value(x float64) float64 {
	if a.levels > 0 {
		return a.level(a.nearest(x))
	}
	v := a.warp.from(a.from + x*a.width)
	return min(max(short(v, a.warp.slope(v)*a.width), a.low), a.high)
}

// short rounds a value to a decimal fraction, to within 1e-10 of the slope with which it
// depends on [0,1]: 0.01 reads better than 0.009999999999999995.
func short(v, slope float64) float64 {
	digits := 10 - math.Floor(math.Log10(slope))
	switch {
	case digits >= 0 && digits <= 22: // powers of ten that are exact
		if scaled := v * math.Pow10(int(digits)); math.Abs(scaled) < maxWhole {
			return math.Round(scaled) / math.Pow10(int(digits))
		}
	case digits < 0 && digits >= -22:
		return math.Round(v/math.Pow10(int(-digits))) * math.Pow10(int(-digits))
	}
	return v
}
