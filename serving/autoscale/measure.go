package autoscale

import (
	"math"
	"time"

	"github.com/clary-ml/clary/serving/route"
)

// Measurement is how a fleet did in the time since the measurement before.
type Measurement struct {
	At time.Time
	// Ready is how many replicas answered.
	Ready int
	// Waiting is how many requests wait for a replica now, or are held for the first one.
	Waiting float64
	// Values are what was measured. Concurrency are the requests at all replicas together, those that wait
	// not among them; requests those that arrived in a second; backlog and totals are of the whole fleet
	// too, and of others it is what a replica had in the mean. What is left out, or no finite number,
	// was not measured.
	Values map[Metric]float64
	// Latency is of the requests that ended.
	Latency route.Histogram
}

// value is one of the measured ones.
func (m Measurement) value(metric Metric) (float64, bool) {
	v, ok := m.Values[metric]
	return v, ok && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// active says that somebody asked.
func (m Measurement) active() bool {
	for _, metric := range []Metric{Concurrency, Requests, Backlog} {
		if v, ok := m.value(metric); ok && v > 0 {
			return true
		}
	}
	return m.Waiting > 0
}

// within is the part of a series, which is in order of time, that is younger than span.
func within(series []Measurement, now time.Time, span time.Duration) []Measurement {
	end := len(series)
	for end > 0 && series[end-1].At.After(now) {
		end--
	}
	begin := end
	for begin > 0 && now.Sub(series[begin-1].At) < span {
		begin--
	}
	return series[begin:end]
}

// reading is what a policy sees of its metric.
type reading struct {
	// total is of the fleet: what all replicas have together. each is for one.
	total, each float64
	// known says that it was measured at all, covered that it was throughout the window.
	known, covered bool
	// few says that there were too few requests for a quantile.
	few bool
}

// slack is the longest time without a measurement in a window that still counts as measured.
func slack(span time.Duration) time.Duration { return max(span/4, 3*time.Second) }

// read is the mean of a policy's metric over a window.
func (p Policy) read(series []Measurement, now time.Time, span time.Duration) reading {
	if p.Metric == Latency {
		return p.readLatency(series, now, span)
	}
	recent := within(series, now, span)
	r := reading{covered: true}
	n, last, ready := 0, now.Add(-span), 0
	for _, m := range recent {
		v, ok := m.value(p.Metric)
		if !ok || m.Ready == 0 && !p.sums() {
			continue
		}
		if p.Metric == Concurrency {
			v += max(m.Waiting, 0)
		}
		r.covered = r.covered && m.At.Sub(last) <= slack(span)
		n, last, ready = n+1, m.At, m.Ready
		if p.sums() {
			r.total += v
		} else {
			r.each += v
			// A replica's share of the work falls when there are more: so it is the work that is averaged.
			r.total += v * float64(m.Ready)
		}
	}
	r.known, r.covered = n > 0, r.covered && now.Sub(last) <= slack(span)
	if n == 0 {
		return r
	}
	r.total, r.each = r.total/float64(n), r.each/float64(n)
	if p.Metric == Concurrency {
		r.total = min(r.total, offered(recent))
	}
	if p.sums() {
		r.each = r.total / float64(max(ready, 1))
	}
	return r
}

// drain is in what time requests that wait shall have been served.
const drain = 20 * time.Second

// offered is the concurrency that there would be if nothing had to wait, and those that wait now were
// served within the time of drain: by Little's law the requests that arrive in a second times the time
// that one spends at a replica, which is those in flight divided by those that ended in a second. A
// line that grew while replicas started would else pass for as many requests at a time, and
// have several times the replicas started that it takes.
func offered(recent []Measurement) float64 {
	var seconds, flying, arrived, ended float64
	for i, m := range recent {
		if i == 0 {
			continue // how long it measured is not known
		}
		concurrency, ok := m.value(Concurrency)
		rate, both := m.value(Requests)
		if !ok || !both {
			return math.Inf(1)
		}
		d := m.At.Sub(recent[i-1].At).Seconds()
		seconds, flying = seconds+d, flying+d*concurrency
		arrived, ended = arrived+d*rate, ended+float64(m.Latency.N())
	}
	if ended == 0 || flying == 0 {
		return math.Inf(1)
	}
	each := flying / ended
	return (arrived/seconds + recent[len(recent)-1].Waiting/drain.Seconds()) * each
}

// enough is how many requests beyond a quantile there must be to speak of it.
const enough = 5

// readLatency is a quantile of the requests since the number of ready replicas last changed: those
// before say nothing of the fleet as it is. Of too few requests it is the slowest, if they are all
// that was asked of the fleet throughout the window.
func (p Policy) readLatency(series []Measurement, now time.Time, span time.Duration) reading {
	recent := within(series, now, span)
	if len(recent) == 0 || recent[len(recent)-1].Ready == 0 {
		return reading{}
	}
	ready := recent[len(recent)-1].Ready
	var h route.Histogram
	last, inFlight := now, 0.0
	for i := len(recent) - 1; i >= 0 && recent[i].Ready == ready && last.Sub(recent[i].At) <= slack(span); i-- {
		concurrency, ok := recent[i].value(Concurrency)
		if !ok {
			concurrency = math.Inf(1)
		}
		h, last, inFlight = h.Plus(recent[i].Latency), recent[i].At, inFlight+concurrency+recent[i].Waiting
	}
	r := reading{known: true, covered: last.Sub(now.Add(-span)) <= slack(span)}
	quantile := p.quantile()
	if float64(h.N())*(1-quantile) < enough {
		quantile, r.few, r.known = 1, true, r.covered && (h.N() > 0 || inFlight == 0)
	}
	r.each = h.Quantile(quantile).Seconds()
	r.total = r.each * float64(ready)
	return r
}
