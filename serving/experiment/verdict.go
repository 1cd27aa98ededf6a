package experiment

import (
	"fmt"
	"math"
	"slices"
)

// Call is what an experiment comes to.
type Call string

// The calls. All but GoOn are final.
const (
	GoOn    Call = "go on"
	Promote Call = "promote" // the challenger, B, is better
	Keep    Call = "keep"    // B is worse, or harms what is guarded
	Same    Call = "same"    // the difference is smaller than the margin: keep what there is
	Undone  Call = "undone"  // as many requests as were allowed, and no answer
)

// Verdict is what is known by now of the difference that B makes to A.
type Verdict struct {
	Metric Metric `json:"metric"`
	Call   Call   `json:"call"`
	// Why is the recommendation in words.
	Why string `json:"why"`
	A   Side   `json:"a"`
	B   Side   `json:"b"`
	// Estimate, and Low to High which covers the truth at all times with a chance of 1 - alpha: for latency
	// and shares B's relative change (0.1 is 10 % more), else B's mean less A's. What is not known is
	// left out.
	Estimate *float64 `json:"estimate,omitempty"`
	Low      *float64 `json:"low,omitempty"`
	High     *float64 `json:"high,omitempty"`
	// Evidence is the e-value, P the always-valid p-value: 1 / Evidence, at most 1.
	Evidence float64 `json:"evidence"`
	P        float64 `json:"p"`
	// More is about how many requests more it takes, at the difference that is seen; 0 is not known.
	More   int64          `json:"more,omitempty"`
	Guards []GuardVerdict `json:"guards,omitempty"`
}

// Side is one arm as the verdict sees it.
type Side struct {
	Name string `json:"name"`
	// N is how many observations of the metric there were, Value their mean: latency's geometric one in
	// seconds, a share, a reward.
	N     int64   `json:"n"`
	Value float64 `json:"value"`
}

// GuardVerdict is whether a guarded metric is worse.
type GuardVerdict struct {
	Metric Metric   `json:"metric"`
	Harmed bool     `json:"harmed"`         // it is known to be worse, by more than its margin
	Safe   bool     `json:"safe"`           // it may be promoted for all of it
	Low    *float64 `json:"low,omitempty"`  // as of a verdict
	High   *float64 `json:"high,omitempty"` // as of a verdict
}

// Done says that a verdict is final.
func (v Verdict) Done() bool { return v.Call != GoOn }

// LogEvidence is the logarithm of the e-value against there being no difference. It is what Judge
// decides by, without the rest.
func (p Plan) LogEvidence(a, b Arm) float64 {
	if p.tooFew(p.Metric, a, b) {
		return 0
	}
	x, y := hits(a), hits(b)
	switch {
	case p.Metric == Errors:
		x, y = count{a.Errors, a.Requests}, count{b.Errors, b.Requests}
	case p.Metric == Latency || !p.Binary:
		return p.compare(p.Metric, a, b).logE
	}
	if x.hits+y.hits == 0 {
		return 0
	}
	against, odds := hypothesis(x, y)
	return against(odds)
}

// Judge says what is known by now. Arms are what was counted since the experiment began; A is the
// variant that stays unless B is better.
func (p Plan) Judge(a, b Arm) Verdict {
	v := Verdict{Metric: p.Metric, Call: GoOn, A: p.side(a), B: p.side(b), Evidence: 1, P: 1}
	v.Guards = p.guards(a, b)
	if p.tooFew(p.Metric, a, b) {
		v.More = max(p.least()-v.A.N, 0) + max(p.least()-v.B.N, 0)
		v.Why = fmt.Sprintf("go on: each variant needs at least %s, %s has %d and %s %d", p.things(p.least()), a.Name, v.A.N, b.Name, v.B.N)
		return p.end(v)
	}
	in := p.compare(p.Metric, a, b)
	v.Evidence, v.P = math.Exp(min(in.logE, 700)), min(math.Exp(-in.logE), 1)
	v.Estimate, v.Low, v.High = p.shown(p.Metric, in)
	if p.Metric == Reward && p.Binary && (a.Rewards.Sum != a.Rewards.Square || b.Rewards.Sum != b.Rewards.Square) {
		v.Why = "go on: rewards other than 0 and 1 were posted, which a binary experiment cannot judge: begin one that is not"
		return p.end(v)
	}
	better := in.sign(p.Metric)
	switch {
	case p.within(p.Metric, p.Margin, a, b, in):
		v.Call, v.Why = Same, fmt.Sprintf("no difference beyond %s either way: keep %s", p.amount(p.Metric, p.Margin), a.Name)
	case better < 0:
		v.Call, v.Why = Keep, fmt.Sprintf("keep %s: %s's %s is %s", a.Name, b.Name, p.noun(p.Metric), p.words(p.Metric, v))
	case better > 0:
		v.Call, v.Why = p.promote(v, a, b)
	default:
		v.More = p.more(a, b, in)
		v.Why = p.goOn(v)
	}
	return p.end(v)
}

// promote is what becomes of a better B: its guards may stand in the way.
func (p Plan) promote(v Verdict, a, b Arm) (Call, string) {
	better := fmt.Sprintf("%s's %s is %s", b.Name, p.noun(p.Metric), p.words(p.Metric, v))
	for _, g := range v.Guards {
		if g.Harmed {
			return Keep, fmt.Sprintf("keep %s: %s, but its %s is %s", a.Name, better, p.noun(g.Metric), p.span(g.Metric, g.Low, g.High))
		}
	}
	guarded := p.guarded()
	for i, g := range v.Guards {
		if !g.Safe && p.tooFew(g.Metric, a, b) {
			return GoOn, fmt.Sprintf("go on: %s, but too little is known of its %s", better, p.noun(g.Metric))
		}
		if !g.Safe {
			return GoOn, fmt.Sprintf("go on: %s, but it is not known yet that its %s is worse by less than %s", better, p.noun(g.Metric), p.amount(g.Metric, guarded[i].Margin))
		}
	}
	return Promote, fmt.Sprintf("promote %s: its %s is %s", b.Name, p.noun(p.Metric), p.words(p.Metric, v))
}

// end is the verdict of one that is over before there is an answer: since B does harm, or since it has had
// as many requests as it may.
func (p Plan) end(v Verdict) Verdict {
	for _, g := range v.Guards {
		if v.Call == GoOn && g.Harmed {
			v.Call, v.More = Keep, 0
			v.Why = fmt.Sprintf("keep %s: %s's %s is %s", v.A.Name, v.B.Name, p.noun(g.Metric), p.span(g.Metric, g.Low, g.High))
		}
	}
	if p.Most > 0 && v.Call == GoOn && v.A.N+v.B.N >= p.Most {
		v.Call, v.More = Undone, 0
		v.Why = fmt.Sprintf("keep %s: no answer after %s, which is the most", v.A.Name, p.things(v.A.N+v.B.N))
	}
	return v
}

// guarded are the plan's guards, and the one of errors that each has: where only answers are compared, who
// gives none for the hard requests would win.
func (p Plan) guarded() []Guard {
	if p.Metric == Errors || slices.ContainsFunc(p.Guards, func(g Guard) bool { return g.Metric == Errors }) {
		return p.Guards
	}
	return append(slices.Clip(p.Guards), Guard{Metric: Errors})
}

func (p Plan) guards(a, b Arm) (out []GuardVerdict) {
	for _, guard := range p.guarded() {
		g := GuardVerdict{Metric: guard.Metric, Safe: guard.Margin == 0}
		if p.tooFew(guard.Metric, a, b) {
			g.Safe = false
			out = append(out, g)
			continue
		}
		in := p.compare(guard.Metric, a, b)
		_, g.Low, g.High = p.shown(guard.Metric, in)
		if guard.Margin == 0 {
			g.Harmed = in.sign(guard.Metric) < 0
		} else {
			low, high := p.difference(guard.Metric, a, b, in)
			worst, best := high, low // how much worse at most, and at least
			if guard.Metric == Reward {
				worst, best = -low, -high
			}
			g.Harmed, g.Safe = best > guard.Margin, worst < guard.Margin
		}
		g.Safe = g.Safe && !g.Harmed
		out = append(out, g)
	}
	return out
}

// compare is the interval of one metric: of means, or of the logarithms of a ratio.
func (p Plan) compare(metric Metric, a, b Arm) interval {
	switch {
	case metric == Latency:
		return means(a.Logs, b.Logs, p.alpha(), p.expect())
	case metric == Errors:
		return ratios(count{a.Errors, a.Requests}, count{b.Errors, b.Requests}, p.alpha())
	case p.Binary:
		return ratios(hits(a), hits(b), p.alpha())
	default:
		return means(a.Rewards, b.Rewards, p.alpha(), p.expect())
	}
}

// difference is where the difference lies in the units of a margin.
func (p Plan) difference(metric Metric, a, b Arm, in interval) (low, high float64) {
	switch {
	case metric == Latency:
		return math.Expm1(in.low), math.Expm1(in.high)
	case metric == Errors:
		return points(count{a.Errors, a.Requests}, count{b.Errors, b.Requests}, p.alpha())
	case p.Binary:
		return points(hits(a), hits(b), p.alpha())
	default:
		return in.low, in.high
	}
}

// within says that the difference is known to be smaller than a margin.
func (p Plan) within(metric Metric, margin float64, a, b Arm, in interval) bool {
	if margin == 0 {
		return false
	}
	low, high := p.difference(metric, a, b, in)
	return low > -margin && high < margin
}

func hits(a Arm) count { return count{int64(math.Round(a.Rewards.Sum)), a.Rewards.N} }

// sign is 1 if B is known to be better, -1 if worse, and else 0.
func (in interval) sign(metric Metric) int {
	sign := 0
	if in.low > 0 {
		sign = 1
	} else if in.high < 0 {
		sign = -1
	}
	if metric != Reward {
		sign = -sign
	}
	return sign
}

// observations are how many an arm has of a metric.
func observations(metric Metric, a Arm) int64 {
	return map[Metric]int64{Latency: a.Logs.N, Errors: a.Requests, Reward: a.Rewards.N}[metric]
}

func (p Plan) tooFew(metric Metric, a, b Arm) bool {
	return min(observations(metric, a), observations(metric, b)) < p.least()
}

func (p Plan) side(a Arm) Side {
	side := Side{Name: a.Name, N: observations(p.Metric, a)}
	switch n := float64(max(side.N, 1)); p.Metric {
	case Latency:
		side.Value = math.Exp(min(a.Logs.Sum/n, 700))
	case Errors:
		side.Value = float64(a.Errors) / n
	default:
		side.Value = a.Rewards.Sum / n
	}
	if side.N == 0 {
		side.Value = 0
	}
	return side
}

// relative says that a metric's interval is of the logarithm of a ratio.
func (p Plan) relative(metric Metric) bool { return metric != Reward || p.Binary }

// shown is an interval as a verdict has it.
func (p Plan) shown(metric Metric, in interval) (estimate, low, high *float64) {
	known := func(x float64) *float64 {
		if p.relative(metric) && !math.IsInf(x, 0) {
			x = math.Expm1(min(x, 700))
		}
		if math.IsInf(x, 0) || math.IsNaN(x) {
			return nil
		}
		return &x
	}
	return known(in.estimate), known(in.low), known(in.high)
}

// more is about how many requests more it takes until the interval leaves 0, or lies within the margin, if
// the estimate is right: half of it shrinks as that of a mean does.
func (p Plan) more(a, b Arm, in interval) int64 {
	n := float64(observations(p.Metric, a) + observations(p.Metric, b))
	rho := mixture(p.alpha(), p.expect())
	now := width(n*rho, p.alpha()) / math.Sqrt(n)
	// until is after how many observations a half that is so long now is no longer than aim.
	until := func(half, aim float64) float64 {
		at := n
		for aim > 0 && at < maxCount && half*width(at*rho, p.alpha())/math.Sqrt(at) > aim*now {
			at *= 1.02
		}
		if !(aim > 0) || math.IsInf(half, 0) || math.IsNaN(half) {
			return math.Inf(1)
		}
		return at
	}
	best := until((in.high-in.low)/2, math.Abs(in.estimate))
	switch low, high := p.difference(p.Metric, a, b, in); {
	case p.Margin == 0:
	case p.Metric == Latency: // its logarithm is what is about normal
		best = min(best, until((in.high-in.low)/2, math.Log1p(p.Margin)-math.Abs(in.estimate)))
	default:
		best = min(best, until((high-low)/2, p.Margin-math.Abs(low+high)/2))
	}
	if best >= maxCount {
		return 0
	}
	return max(int64(best-n), 1)
}
