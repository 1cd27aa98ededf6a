package experiment

import (
	"fmt"
	"math"
)

func (p Plan) noun(metric Metric) string {
	return map[Metric]string{Latency: "latency", Errors: "error rate", Reward: "reward"}[metric]
}

// things are so many observations of the plan's metric.
func (p Plan) things(n int64) string {
	if p.Metric == Reward {
		return fmt.Sprintf("%d rewards", n)
	}
	return fmt.Sprintf("%d requests", n)
}

// amount is a margin in words.
func (p Plan) amount(metric Metric, margin float64) string {
	switch {
	case metric == Latency:
		return percent(margin)
	case metric == Errors || p.Binary:
		return fmt.Sprintf("%.3g points", 100*margin)
	default:
		return fmt.Sprintf("%.3g", margin)
	}
}

func (p Plan) words(metric Metric, v Verdict) string { return p.span(metric, v.Low, v.High) }

// span is an interval in words that a person would say: "12 % to 18 % lower".
func (p Plan) span(metric Metric, low, high *float64) string {
	format := percent
	if !p.relative(metric) {
		format = func(x float64) string { return fmt.Sprintf("%.3g", x) }
	}
	switch {
	case low != nil && high != nil && *high <= 0:
		return fmt.Sprintf("%s to %s lower", format(-*high), format(-*low))
	case low != nil && high != nil && *low >= 0:
		return fmt.Sprintf("%s to %s higher", format(*low), format(*high))
	case low != nil && high != nil:
		return fmt.Sprintf("between %s lower and %s higher", format(-*low), format(*high))
	case low != nil && *low >= 0:
		return fmt.Sprintf("at least %s higher", format(*low))
	case high != nil && *high <= 0:
		return fmt.Sprintf("at least %s lower", format(-*high))
	case low != nil:
		return fmt.Sprintf("at most %s lower", format(-*low))
	case high != nil:
		return fmt.Sprintf("at most %s higher", format(*high))
	default:
		return "not known"
	}
}

func percent(x float64) string {
	switch size := math.Abs(100 * x); {
	case size >= 1000:
		return fmt.Sprintf("%.3g times", x+1)
	case size >= 10:
		return fmt.Sprintf("%.0f %%", 100*x)
	default:
		return fmt.Sprintf("%.2g %%", 100*x)
	}
}

// goOn says what is seen so far, and how long it may take.
func (p Plan) goOn(v Verdict) string {
	seen := fmt.Sprintf("go on: %s's %s is %s", v.B.Name, p.noun(p.Metric), p.words(p.Metric, v))
	switch {
	case v.More > 0:
		return fmt.Sprintf("%s; about %s more if what is seen is right", seen, p.things(rounded(v.More)))
	case p.Margin == 0:
		return seen + "; without a margin equal variants are never told apart"
	default:
		return seen
	}
}

// rounded has two digits that count.
func rounded(n int64) int64 {
	unit := int64(1)
	for n/unit >= 100 {
		unit *= 10
	}
	return (n + unit/2) / unit * unit
}
