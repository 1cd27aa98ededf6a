package autoscale

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Finding is what one policy wants.
type Finding struct {
	Metric Metric `json:"metric"`
	// Value is what was measured for each replica; Known is false if it was not.
	Value float64 `json:"value,omitempty"`
	Known bool    `json:"known"`
	// Wish is how many replicas it wants.
	Wish int `json:"wish"`
	// Silent says that it leaves it to others whether there are fewer.
	Silent bool   `json:"silent,omitempty"`
	Why    string `json:"why"`

	// total is what all replicas have of it together.
	total float64
}

// find asks one policy, with so many replicas wanted now.
func (s Spec) find(p Policy, series []Measurement, now time.Time, wanted int) Finding {
	r := p.read(series, now, s.window())
	f := Finding{Metric: p.Metric, Known: r.known, Value: r.each, Wish: wanted, total: r.total}
	if !r.known {
		f.Why = fmt.Sprintf("%s was not measured in the last %s", p.Metric, brief(s.window()))
		return f
	}
	switch {
	case r.few && len(p.Steps) > 0:
		f.Silent, f.Why = true, "there are too few requests to tell their latency"
	case r.few:
		f.Why = fmt.Sprintf("there are few requests, the slowest took %s s, the target is %s", number(r.each), number(p.Target))
		if r.each < p.Target*(1-s.tolerance()) {
			f.Wish = max(wanted-1, 0)
		}
	case len(p.Steps) > 0:
		p.step(&f, series, wanted)
	default:
		s.track(p, &f, wanted)
	}
	if f.Wish < wanted && !r.covered {
		f.Wish = wanted
		f.Why += fmt.Sprintf("; but it was not measured throughout the last %s", brief(s.window()))
	}
	return f
}

// track wants as many replicas as bring the metric to its target.
func (s Spec) track(p Policy, f *Finding, wanted int) {
	f.Why = fmt.Sprintf("%s is %s for each replica, the target %s", p.Metric, number(f.Value), number(p.Target))
	if wanted > 0 {
		if off := f.total/(float64(wanted)*p.Target) - 1; math.Abs(off) <= s.tolerance() {
			return
		}
	}
	f.Wish = share(f.total, p.Target)
}

// step wants what the step that holds says. It counts from the replicas that are ready: those that
// start already are part of the change.
func (p Policy) step(f *Finding, series []Measurement, wanted int) {
	f.Why = fmt.Sprintf("%s is %s for each replica: no step holds", p.Metric, number(f.Value))
	ready, holds := 0, false
	f.Silent = true // steps that only add do not mind fewer, unless one of them holds
	if len(series) > 0 {
		ready = series[len(series)-1].Ready
	}
	for i, step := range p.Steps {
		from, to := step.bounds()
		change := step.change(ready)
		f.Silent = f.Silent && change > 0
		if f.Value < from || f.Value >= to {
			continue
		}
		holds, f.Why = true, fmt.Sprintf("%s is %s for each replica: steps[%d] holds", p.Metric, number(f.Value), i)
		if change > 0 {
			f.Wish = max(wanted, ready+change)
		} else {
			f.Wish = max(min(wanted, ready+change), 0)
		}
	}
	f.Silent = f.Silent && !holds
}

func (s Step) change(ready int) int {
	if s.Percent == 0 {
		return s.Add
	}
	change := math.Ceil(math.Abs(s.Percent) / 100 * float64(ready))
	return int(math.Copysign(min(max(change, 1), MaxReplicas), s.Percent))
}

// share is how many replicas it takes for each to have no more than its target.
func share(total, target float64) int {
	return int(min(max(math.Ceil(total/target-1e-9), 0), MaxReplicas))
}

// burst is how many replicas the short window wants, of the policies that follow the load itself.
func (s Spec) burst(series []Measurement, now time.Time) (wish int, by Policy) {
	for _, p := range s.Policies {
		if p.Metric != Concurrency && p.Metric != Requests || len(p.Steps) > 0 {
			continue
		}
		r := p.read(series, now, s.Burst.window(s.window()))
		if want := share(r.total, p.Target); r.known && want > wish {
			wish, by = want, p
		}
	}
	return wish, by
}

// number is a measurement as people read it.
func number(v float64) string {
	if math.Abs(v) >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// brief is a duration without the units at its end that are 0.
func brief(d time.Duration) string {
	text := d.String()
	if rest, ok := strings.CutSuffix(text, "m0s"); ok {
		text = rest + "m"
	}
	if rest, ok := strings.CutSuffix(text, "h0m"); ok {
		text = rest + "h"
	}
	return text
}
