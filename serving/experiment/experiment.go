// Package experiment settles A/B questions: which of two variants has the lower latency, fewer errors
// or the higher reward. Its answer may be looked at after every request, and acted on as soon as
// there is one: the chance that it is ever wrong stays below Alpha, however often and until
// whenever one looks (an always-valid, or anytime-valid, test).
//
// It is pure: a Plan is given the sums that routers counted and answers with a Verdict.
//
// Means (of the logarithm of latency, and of rewards) are compared by the asymptotic confidence sequence of
// Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas ("Time-uniform central limit theory and asymptotic
// confidence sequences", Annals of Statistics 2024: the Gaussian mixture, and its use in randomized
// experiments), which is Robbins' normal mixture (1970) with the variance estimated; with two arms it
// is also the mixture sequential probability ratio test of Johari, Koomen, Pekelis and Walsh
// ("Always valid inference", Operations Research 2022). Shares (of errors, and of rewards that are yes
// or no) are compared without a limit theorem, so that a handful of errors is enough and not too
// few: under the hypothesis an error falls on an arm with the arm's share of the requests, whatever the
// error rate is, which Robbins' beta-binomial mixture tests (Howard, Ramdas, McAuliffe and Sekhon,
// "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 2021, on
// conjugate mixtures). Package sim measures how often both are wrong.
package experiment

import (
	"math"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/route"
)

// Metric is what variants are compared on.
type Metric string

// The metrics.
const (
	Latency Metric = "latency" // geometric mean of the time to answer; lower is better
	Errors  Metric = "errors"  // share of requests that failed; lower is better
	Reward  Metric = "reward"  // mean of the rewards that were posted; higher is better
)

// Plan is what is asked, laid down before there is an answer.
type Plan struct {
	// Metric is latency, errors or reward.
	Metric Metric `json:"metric"`
	// Binary says that each reward is 0 or 1: then few of them say more.
	Binary bool `json:"binary,omitempty"`
	// Alpha is the chance of calling a difference where there is none; 0 means 0.05.
	Alpha float64 `json:"alpha,omitempty"`
	// Margin is a difference that does not matter: of latency a share of it (0.02 is 2 %), of errors a
	// share of the requests (0.001 is one in a thousand), of rewards their own unit. With it an
	// experiment also ends when the difference is known to be smaller. 0 is none.
	Margin float64 `json:"margin,omitempty"`
	// Least is how many requests each arm must have before there is an answer; 0 means 200. Of
	// rewards that are posted it counts those.
	Least int64 `json:"least,omitempty"`
	// Most is after how many requests of both arms it ends without an answer; 0 is never.
	Most int64 `json:"most,omitempty"`
	// Expect is about how many requests of both arms it is likely to take; the test is the sharpest
	// there, and valid anywhere. 0 means 10,000.
	Expect int64 `json:"expect,omitempty"`
	// Guards are metrics that must not be worse for the challenger to be promoted. Errors are guarded in
	// any case, without a margin unless one is given.
	Guards []Guard `json:"guards,omitempty"`
}

// Guard is a metric that must not be worse: with a Margin it must be known to be worse by less than that,
// without one it must not be known to be worse.
type Guard struct {
	Metric Metric  `json:"metric"`
	Margin float64 `json:"margin,omitempty"`
}

// Arm is what was counted of one variant since the experiment began.
type Arm struct {
	Name     string
	Requests int64
	Errors   int64
	Logs     route.Moments // of the logarithms of latencies in seconds, of requests that did not fail
	Rewards  route.Moments
}

const (
	defaultAlpha  = 0.05
	defaultLeast  = 200
	defaultExpect = 10_000
)

func (p Plan) alpha() float64 {
	if p.Alpha == 0 {
		return defaultAlpha
	}
	return p.Alpha
}

func (p Plan) least() int64 {
	if p.Least == 0 {
		return defaultLeast
	}
	return p.Least
}

func (p Plan) expect() float64 {
	if p.Expect == 0 {
		return defaultExpect
	}
	return float64(p.Expect)
}

// Validate reports every mistake, each with the path of its field.
func (p Plan) Validate() cluster.Problems {
	var out cluster.Problems
	checkMetric(&out, "metric", p.Metric)
	if p.Binary && p.Metric != Reward {
		out.Add("binary", "is for the metric reward")
	}
	if p.Alpha != 0 && !(p.Alpha >= 1e-6 && p.Alpha <= 0.5) {
		out.Add("alpha", "%v is out of range: from 0.000001 to 0.5, such as 0.05", p.Alpha)
	}
	checkMargin(&out, "margin", p.Metric, p.Margin)
	for _, count := range []struct {
		field string
		n     int64
	}{{"least", p.Least}, {"most", p.Most}, {"expect", p.Expect}} {
		if count.n < 0 || count.n > maxCount || count.n > 0 && count.n < 10 {
			out.Add(count.field, "%d is out of range: from 10 to %d, or 0 for the default", count.n, int64(maxCount))
		}
	}
	if p.Most > 0 && p.Most < 2*p.least() {
		out.Add("most", "%d is less than the least of both arms, which is %d", p.Most, 2*p.least())
	}
	seen := map[Metric]bool{p.Metric: true}
	for i, guard := range p.Guards {
		if i == 8 {
			out.Add("guards", "%d of them: one for each other metric", len(p.Guards))
			break
		}
		part := cluster.Problems{}
		checkMetric(&part, "metric", guard.Metric)
		if len(part) == 0 && seen[guard.Metric] {
			part.Add("metric", "%q is what is asked, or guarded already", guard.Metric)
		}
		seen[guard.Metric] = true
		checkMargin(&part, "margin", guard.Metric, guard.Margin)
		out.Under("guards["+string(rune('0'+i))+"]", part)
	}
	return out
}

const maxCount = 1_000_000_000_000

func checkMetric(p *cluster.Problems, field string, metric Metric) {
	switch metric {
	case Latency, Errors, Reward:
	case "":
		p.Add(field, "is missing: latency, errors or reward")
	default:
		p.Add(field, "%q is unknown: latency, errors or reward", cluster.Clip(string(metric)))
	}
}

func checkMargin(p *cluster.Problems, field string, metric Metric, margin float64) {
	most := map[Metric]float64{Latency: 10, Errors: 1}[metric]
	switch {
	case math.IsNaN(margin) || math.IsInf(margin, 0) || margin < 0:
		p.Add(field, "%v is out of range: more than 0, or 0 for none", margin)
	case most > 0 && margin > most:
		p.Add(field, "%v is out of range: up to %v", margin, most)
	}
}
