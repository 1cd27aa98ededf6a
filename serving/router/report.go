package router

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/serving/route"
)

// shard is what one loop counts of a fleet. Loops have their own so that they do not fight for lines.
type shard struct {
	requests, errors, refused, retries, nanos, spent atomic.Int64

	latency [route.Buckets]atomic.Int64
	logs    moments
	rewards moments
	_       [64]byte
}

// moments are route.Moments that several may add to.
type moments struct {
	n                 atomic.Int64
	sum, square, cube atomic.Uint64 // float64 bits
}

func (m *moments) add(x float64) {
	m.n.Add(1)
	addFloat(&m.sum, x)
	addFloat(&m.square, x*x)
	addFloat(&m.cube, x*x*x)
}

func (m *moments) read() route.Moments {
	return route.Moments{
		N: m.n.Load(), Sum: math.Float64frombits(m.sum.Load()), Square: math.Float64frombits(m.square.Load()), Cube: math.Float64frombits(m.cube.Load()),
	}
}

func addFloat(to *atomic.Uint64, x float64) {
	for {
		old := to.Load()
		if to.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+x)) {
			return
		}
	}
}

// answered counts what a replica has answered: it was busy until the end, and took until what Latency means.
func (s *shard) answered(busy, took time.Duration, failed bool) {
	s.requests.Add(1)
	if failed {
		s.errors.Add(1)
	}
	s.nanos.Add(int64(busy))
	s.spent.Add(int64(took))
	s.latency[route.BucketOf(took)].Add(1)
	s.logs.add(math.Log(max(took.Seconds(), 1e-6)))
}

// lost counts what was sent and not answered.
func (s *shard) lost(took time.Duration) {
	s.requests.Add(1)
	s.errors.Add(1)
	s.nanos.Add(int64(took))
}

// left counts what the client gave up.
func (s *shard) left(took time.Duration) {
	s.requests.Add(1)
	s.nanos.Add(int64(took))
}

func histogram(into *route.Histogram, from *[route.Buckets]atomic.Int64) {
	for i := range from {
		if n := from[i].Load(); n != 0 {
			for len(into.Counts) <= i {
				into.Counts = append(into.Counts, 0)
			}
			into.Counts[i] += n
		}
	}
}

// Report says how each fleet does and did since the router started.
func (r *Router) Report() route.Report {
	t := r.table.Load()
	report := route.Report{Router: r.options.Name, Boot: r.boot, Version: t.of.Version, At: time.Now().UnixNano()}
	for i := range t.of.Endpoints {
		e := t.byName[t.of.Endpoints[i].Name]
		for j, f := range e.fleets {
			out := f.report(e.name, &e.of.Fleets[j])
			if shadows := r.options.Shadows; shadows != nil {
				out.Shadow = shadows(e.of, &e.of.Fleets[j])
			}
			report.Fleets = append(report.Fleets, out)
		}
	}
	return report
}

// Reward adds what an answer turned out to be worth to the fleet that gave it, and says whether there
// is such a fleet. A generation below 0 is the newest.
func (r *Router) Reward(endpoint, variant string, generation int64, reward float64) bool {
	e := r.table.Load().byName[endpoint]
	if e == nil {
		return false
	}
	at := -1
	for i := range e.of.Fleets {
		f := &e.of.Fleets[i]
		if f.Variant == variant && (f.Generation == generation || generation < 0 && (at < 0 || f.Generation > e.of.Fleets[at].Generation)) {
			at = i
		}
	}
	if at >= 0 {
		e.fleets[at].shards[0].rewards.add(reward)
	}
	return at >= 0
}

func (f *fleet) report(endpoint string, of *route.Fleet) route.FleetReport {
	out := route.FleetReport{Endpoint: endpoint, Variant: of.Variant, Generation: of.Generation, Waiting: f.waiting.Load()}
	f.sum(&out)
	f.mu.Lock()
	all := f.all
	f.mu.Unlock()
	for _, m := range all {
		replica := route.ReplicaReport{ID: m.ID, InFlight: m.flying.Load(), Ejected: m.out.Load()}
		if replica.Ejected {
			m.mu.Lock()
			replica.Why = m.verdict.why
			m.mu.Unlock()
		}
		out.InFlight += replica.InFlight
		out.Replicas = append(out.Replicas, replica)
	}
	return out
}

// sum adds the loops' counts up.
func (f *fleet) sum(out *route.FleetReport) {
	nanos := int64(0)
	for i := range f.shards {
		s := &f.shards[i]
		out.Requests += s.requests.Load()
		out.Errors += s.errors.Load()
		out.Refused += s.refused.Load()
		nanos += s.nanos.Load()
		histogram(&out.Latency, &s.latency)
		out.Logs = out.Logs.Plus(s.logs.read())
		out.Rewards = out.Rewards.Plus(s.rewards.read())
	}
	out.Busy = time.Duration(nanos).Seconds()
}
