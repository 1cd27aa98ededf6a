package autoscale

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
)

const (
	maxPolicies = 16
	maxSteps    = 32
	maxSchedule = 64
	longest     = 24 * time.Hour
	maxMetric   = 128
)

// Validate reports every mistake, each with the path of its field.
func (s Spec) Validate() cluster.Problems {
	var p cluster.Problems
	checkCount(&p, "min", s.Min)
	checkCount(&p, "max", s.Max)
	if s.Max != 0 && s.Min > s.Max {
		p.Add("min", "%d is more than max, which is %d", s.Min, s.Max)
	}
	if s.Min == 0 && s.Max == 0 {
		p.Add("max", "is missing: with min and max 0 there would never be a replica")
	}
	if s.Initial != nil && (*s.Initial < s.Min || *s.Initial > s.most()) {
		p.Add("initial", "%d is out of range: from min to max, which is from %d to %d", *s.Initial, s.Min, s.most())
	}
	checkSpan(&p, "idle", s.Idle, time.Second, 30*longest)
	checkSpan(&p, "window", s.Window, 5*time.Second, time.Hour)
	checkSpan(&p, "burst.window", s.Burst.Window, time.Second, s.window())
	if t := s.Burst.Threshold; t != 0 && !(t > 1 && t <= 1000) {
		p.Add("burst.threshold", "%v is out of range: more than 1, up to 1000", t)
	}
	if t := s.tolerance(); !(t >= 0 && t <= 0.9) {
		p.Add("tolerance", "%v is out of range: from 0 to 0.9", t)
	}
	p.Under("scale_out", s.ScaleOut.validate())
	p.Under("scale_in", s.ScaleIn.validate())

	if len(s.Policies) > maxPolicies {
		p.Add("policies", "%d of them: at most %d", len(s.Policies), maxPolicies)
	}
	for i, policy := range s.Policies {
		p.Under(fmt.Sprintf("policies[%d]", i), policy.validate())
		if before := slices.IndexFunc(s.Policies[:i], policy.like); before >= 0 {
			p.Add(fmt.Sprintf("policies[%d].metric", i), "%q is in policies[%d] already: put the two together", cluster.Clip(string(policy.Metric)), before)
		}
	}
	if len(s.Schedule) > maxSchedule {
		p.Add("schedule", "%d of them: at most %d", len(s.Schedule), maxSchedule)
		return p
	}
	for i, entry := range s.Schedule {
		p.Under(fmt.Sprintf("schedule[%d]", i), entry.validate(s))
	}
	return p
}

// like says that two policies would look at the same number in the same way.
func (p Policy) like(o Policy) bool {
	return p.Metric == o.Metric && p.Quantile == o.Quantile && (len(p.Steps) > 0) == (len(o.Steps) > 0)
}

func (p Policy) validate() cluster.Problems {
	var out cluster.Problems
	switch p.Metric {
	case Concurrency, Requests, Latency, GPU, Backlog:
		if p.Total {
			out.Add("total", "is for a metric of your own: what %s is divided by is known", p.Metric)
		}
	case "":
		out.Add("metric", "is missing: concurrency, requests, latency, gpu, backlog, or the name of a metric of yours")
	default:
		if !isMetric(string(p.Metric)) {
			out.Add("metric", "%q is no metric's name: letters, digits, '_' and ':', not beginning with a digit, at most %d", cluster.Clip(string(p.Metric)), maxMetric)
		}
	}
	if q := p.Quantile; q != 0 && !(q > 0 && q < 1) {
		out.Add("quantile", "%v is out of range: between 0 and 1, such as 0.95", q)
	} else if q != 0 && p.Metric != Latency {
		out.Add("quantile", "is for the metric latency")
	}
	switch {
	case len(p.Steps) > 0 && p.Target != 0:
		out.Add("target", "and steps exclude each other: a policy has one of them")
	case len(p.Steps) > maxSteps:
		out.Add("steps", "%d of them: at most %d", len(p.Steps), maxSteps)
	case len(p.Steps) > 0:
		checkSteps(&out, p.Steps)
	case !(p.Target > 0 && p.Target <= 1e12):
		out.Add("target", "%v is out of range: more than 0, up to 1e12", p.Target)
	case p.Metric == GPU && p.Target > 100:
		out.Add("target", "%v is out of range: a GPU is busy up to 100 percent", p.Target)
	}
	return out
}

func checkSteps(p *cluster.Problems, steps []Step) {
	for i, step := range steps {
		field := fmt.Sprintf("steps[%d]", i)
		from, to := step.bounds()
		switch {
		case step.Above == nil && step.Below == nil:
			p.Add(field, "needs above or below: when it holds")
		case !(from < to):
			p.Add(field, "above %v is not less than below %v", from, to)
		case step.Above != nil && math.IsInf(from, 0) || step.Below != nil && math.IsInf(to, 0):
			p.Add(field, "above and below are finite numbers")
		}
		switch {
		case (step.Add == 0) == (step.Percent == 0):
			p.Add(field, "needs either add or percent, and not 0")
		case step.Add < -MaxReplicas || step.Add > MaxReplicas:
			p.Add(field+".add", "%d is out of range: up to %d", step.Add, MaxReplicas)
		case !(step.Percent >= -100 && step.Percent <= 10_000):
			p.Add(field+".percent", "%v is out of range: from -100 to 10000", step.Percent)
		}
		for j, other := range steps[:i] {
			if begin, end := other.bounds(); from < end && begin < to {
				p.Add(field, "overlaps steps[%d]: only one may hold at a time", j)
			}
		}
	}
}

func (s Step) bounds() (from, to float64) {
	from, to = math.Inf(-1), math.Inf(1)
	if s.Above != nil {
		from = *s.Above
	}
	if s.Below != nil {
		to = *s.Below
	}
	return from, to
}

func (p Pace) validate() cluster.Problems {
	var out cluster.Problems
	for field, d := range map[string]*quantity.Duration{"cooldown": p.Cooldown, "stabilization": p.Stabilization} {
		if d != nil && (d.Std() < 0 || d.Std() > longest) {
			out.Add(field, "%s is out of range: from 0s to %s", d.Std(), longest)
		}
	}
	slices.SortFunc(out, func(a, b cluster.Problem) int { return compare(a.Field, b.Field) })
	if p.MaxStep < 0 || p.MaxStep > MaxReplicas {
		out.Add("max_step", "%d is out of range: from 1 to %d, or 0 for no limit", p.MaxStep, MaxReplicas)
	}
	if !(p.MaxPercent >= 0 && p.MaxPercent <= 10_000) {
		out.Add("max_percent", "%v is out of range: up to 10000, or 0 for no limit", p.MaxPercent)
	}
	return out
}

func checkCount(p *cluster.Problems, field string, n int) {
	if n < 0 || n > MaxReplicas {
		p.Add(field, "%d is out of range: from 0 to %d", n, MaxReplicas)
	}
}

func checkSpan(p *cluster.Problems, field string, d quantity.Duration, least, most time.Duration) {
	if d != 0 && (d.Std() < least || d.Std() > most) {
		p.Add(field, "%s is out of range: from %s to %s", d.Std(), least, most)
	}
}

func isMetric(name string) bool {
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == ':'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return len(name) <= maxMetric
}
