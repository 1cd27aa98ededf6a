package steward

import (
	"time"

	"github.com/clary-ml/clary/serving/route"
)

// Fleet is what all routers together know of a fleet.
type Fleet struct {
	Variant    string
	Generation int64

	InFlight, Waiting  int64     // now
	Asked              time.Time // when a router last told that somebody waits
	Total, TotalErrors int64     // since the routers that tell began to count
	Replicas           map[string]Replica
	// Samples are of one second each, those of minutes ago of several: the oldest first.
	Samples []Sample
}

// Replica is what routers see of one now, by its task's ID.
type Replica struct {
	InFlight int64
	Ejected  bool
	Why      string
}

// Sample is what happened to a fleet in a span of time.
type Sample struct {
	At   time.Time // its end
	Span time.Duration

	Requests, Errors, Refused int64
	Busy                      float64 // seconds that requests spent at replicas together
	Latency                   route.Histogram
	Logs, Rewards             route.Moments
	Shadow                    route.ShadowReport

	InFlight, Waiting int64 // at its end
	Ready             int   // replicas that routers knew of, at its end
	// Values are metrics that replicas themselves told, in the mean, at its end: those that somebody looks at.
	Values map[string]float64
}

// add takes in what a router did since it told before.
func (s *Sample) add(now, before route.FleetReport) {
	s.Requests += now.Requests - before.Requests
	s.Errors += now.Errors - before.Errors
	s.Refused += now.Refused - before.Refused
	s.Busy += now.Busy - before.Busy
	s.Latency = sum(s.Latency, now.Latency, before.Latency)
	s.Logs = s.Logs.Plus(now.Logs.Minus(before.Logs))
	s.Rewards = s.Rewards.Plus(now.Rewards.Minus(before.Rewards))
	if now.Shadow == nil {
		return
	}
	was := route.ShadowReport{}
	if before.Shadow != nil {
		was = *before.Shadow
	}
	s.Shadow.Requests += now.Shadow.Requests - was.Requests
	s.Shadow.Errors += now.Shadow.Errors - was.Errors
	s.Shadow.Dropped += now.Shadow.Dropped - was.Dropped
	s.Shadow.Same += now.Shadow.Same - was.Same
	s.Shadow.Latency = sum(s.Shadow.Latency, now.Shadow.Latency, was.Latency)
	s.Shadow.Logs = s.Shadow.Logs.Plus(now.Shadow.Logs.Minus(was.Logs))
}

// sum is what was counted, and what came since; a quiet second has no buckets.
func sum(counted, now, before route.Histogram) route.Histogram {
	h := counted.Plus(now.Minus(before))
	last := len(h.Counts)
	for last > 0 && h.Counts[last-1] == 0 {
		last--
	}
	return route.Histogram{Counts: h.Counts[:last:last]}
}

// join makes of a sample and the one after it a single one.
func (s *Sample) join(next Sample) {
	s.At, s.Span = next.At, s.Span+next.Span
	s.InFlight, s.Waiting, s.Ready, s.Values = next.InFlight, next.Waiting, next.Ready, next.Values
	s.Requests += next.Requests
	s.Errors += next.Errors
	s.Refused += next.Refused
	s.Busy += next.Busy
	s.Latency = s.Latency.Plus(next.Latency)
	s.Logs, s.Rewards = s.Logs.Plus(next.Logs), s.Rewards.Plus(next.Rewards)
	s.Shadow = route.ShadowReport{
		Requests: s.Shadow.Requests + next.Shadow.Requests, Errors: s.Shadow.Errors + next.Shadow.Errors, Dropped: s.Shadow.Dropped + next.Shadow.Dropped,
		Same: s.Shadow.Same + next.Shadow.Same, Latency: s.Shadow.Latency.Plus(next.Shadow.Latency), Logs: s.Shadow.Logs.Plus(next.Shadow.Logs),
	}
}

// Window is what happened to a fleet in the last so much time, as one sample. Its Span is how much of
// that was heard.
func (f Fleet) Window(last time.Duration) Sample {
	var w Sample
	if len(f.Samples) == 0 {
		return w
	}
	end := f.Samples[len(f.Samples)-1].At
	from := len(f.Samples)
	for from > 0 && end.Sub(f.Samples[from-1].At) < last {
		from--
	}
	for _, s := range f.Samples[from:] {
		w.join(s)
	}
	return w
}

// Concurrency is the mean number of requests at replicas.
func (s Sample) Concurrency() float64 { return s.perSecond(s.Busy) }

// Rate is how many requests there were in a second.
func (s Sample) Rate() float64 { return s.perSecond(float64(s.Requests)) }

// ErrorRate is how many errors there were in a second.
func (s Sample) ErrorRate() float64 { return s.perSecond(float64(s.Errors)) }

// RefusedRate is how many requests in a second no replica got.
func (s Sample) RefusedRate() float64 { return s.perSecond(float64(s.Refused)) }

func (s Sample) perSecond(amount float64) float64 {
	if s.Span <= 0 {
		return 0
	}
	return amount / s.Span.Seconds()
}
