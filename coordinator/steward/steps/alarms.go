package steps

import (
	"fmt"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/steward"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/workload/endpoint"
)

// Alarms watches the new fleets of an update in progress, and has it rolled back if they do what must
// not happen, of enough requests: what was heard is heard, also while some router is silent. That nothing
// happened is said, for a step to end, only when all routers are heard, since it began or for a window.
func Alarms(e *cluster.Endpoint, in steward.Input) (changed bool) {
	alarms, watched := endpoint.Watched(*e)
	if !watched {
		return false
	}
	measured := true
	for _, fleet := range e.Fleets {
		if fleet.Generation != e.Rollout.To || fleet.Retired {
			continue
		}
		seen := in.Seen.Fleet(fleet.Variant, fleet.Generation)
		why := alarm(alarms, seen.Window(alarms.Window.Std()))
		if alarms.Metric != nil && why == "" && fleet.Replicas > 0 {
			var known bool
			why, known = told(*alarms.Metric, seen.Samples, in.Now, alarms.Window.Std())
			measured = measured && known
		}
		if why != "" {
			*e = endpoint.Alarm(*e, fmt.Sprintf("%s: %s", fleet.ID(), why))
			return true
		}
	}
	since := in.Seen.Since
	if !in.Seen.Known || !measured || since.UnixNano() > e.Rollout.Since && in.Now.Sub(since) < alarms.Window.Std() {
		return false
	}
	*e, changed = endpoint.Quiet(*e, in.Now.UnixNano())
	return changed
}

// told is what a metric that replicas tell must not be in the mean over a window, or nothing; and whether
// it was told for half of the window at the least.
func told(m endpoint.MetricAlarm, samples []steward.Sample, now time.Time, window time.Duration) (why string, known bool) {
	var sum, n float64
	var span time.Duration
	for i := len(samples) - 1; i >= 0 && now.Sub(samples[i].At) < window; i-- {
		if value, there := samples[i].Values[m.Name]; there {
			sum, n, span = sum+value, n+1, span+samples[i].Span
		}
	}
	if span < window/2 {
		return "", false
	}
	switch mean := sum / n; {
	case m.Above != nil && mean > *m.Above:
		return fmt.Sprintf("%s is %.4g in the mean of %s, more than %.4g", m.Name, mean, span, *m.Above), true
	case m.Below != nil && mean < *m.Below:
		return fmt.Sprintf("%s is %.4g in the mean of %s, less than %.4g", m.Name, mean, span, *m.Below), true
	}
	return "", true
}

// alarm is what of a fleet in a window must not happen, or nothing.
func alarm(a endpoint.Alarms, w steward.Sample) string {
	if w.Requests < a.MinRequests || w.Requests == 0 {
		return ""
	}
	of := fmt.Sprintf("of %d requests in %s", w.Requests, w.Span)
	if rate := float64(w.Errors) / float64(w.Requests); a.ErrorRate != nil && rate > float64(*a.ErrorRate) {
		return fmt.Sprintf("%.3g %% %s failed, more than %.3g %%", 100*rate, of, 100*float64(*a.ErrorRate))
	}
	for _, bound := range []struct {
		name     string
		quantile float64
		most     quantity.Duration
	}{{"half", 0.5, a.LatencyP50}, {"all but a hundredth", 0.99, a.LatencyP99}} {
		if bound.most == 0 {
			continue
		}
		// Those that got no answer took longer than any that did.
		answered := float64(w.Latency.N()) / float64(w.Requests)
		if answered < bound.quantile {
			return fmt.Sprintf("%s %s were to be answered within %s, and %.3g %% had no answer", bound.name, of, bound.most, 100*(1-answered))
		}
		if took := atLeast(w.Latency, min(bound.quantile/answered, 1)); took > bound.most.Std() {
			return fmt.Sprintf("%s %s took up to %s or more, more than %s", bound.name, of, took, bound.most)
		}
	}
	return ""
}

// atLeast is what a quantile is at the least: where its bucket begins.
func atLeast(h route.Histogram, q float64) time.Duration {
	bucket := route.BucketOf(h.Quantile(q) - time.Microsecond)
	if bucket == 0 {
		return 0
	}
	return route.UpperOf(bucket - 1)
}
