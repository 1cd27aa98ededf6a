package router

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/serving/route"
)

// shard is what one loop counts of a fleet. Loops have their own so that they do not fight for lines.
type shard struct {
	requests, errors, refused, retries, spent atomic.Int64
	busy                                      busy

	latency [route.Buckets]atomic.Int64
	logs    moments
	rewards moments
	_       [64]byte
}

// busy is the time that requests spend at replicas, those that are still there included: one of a minute
// counts in each of its seconds.
type busy struct {
	mu    sync.Mutex
	open  time.Duration // how many are there
	began time.Duration // the sum of when they began
	ended time.Duration // that those spent that ended
}

func (b *busy) begin(at time.Duration) {
	b.mu.Lock()
	b.open, b.began = b.open+1, b.began+at
	b.mu.Unlock()
}

func (b *busy) end(began, at time.Duration) {
	b.mu.Lock()
	b.open, b.began, b.ended = b.open-1, b.began-began, b.ended+at-began
	b.mu.Unlock()
}

func (b *busy) until(now time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended + b.open*now - b.began // what overflows in the product does again in the difference
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

// answered counts what a replica has answered, and after what time.
func (s *shard) answered(took time.Duration, failed bool) {
	s.requests.Add(1)
	if failed {
		s.errors.Add(1)
	}
	s.slow(took)
	if !failed { // who fails fast is not fast
		s.logs.add(math.Log(max(took.Seconds(), 1e-6)))
	}
}

func (s *shard) slow(took time.Duration) {
	s.spent.Add(int64(took))
	s.latency[route.BucketOf(took)].Add(1)
}

// lost counts what was sent and not answered.
func (s *shard) lost() {
	s.requests.Add(1)
	s.errors.Add(1)
}

// left counts what the client gave up. Its answer would have taken at least as long as it was waited for.
func (s *shard) left(waited time.Duration) {
	s.requests.Add(1)
	s.slow(waited)
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
			out := f.report(e.name, &e.of.Fleets[j], r.group.Now())
			if shadows := r.options.Shadows; shadows != nil {
				out.Shadow = shadows(e.of, &e.of.Fleets[j])
			}
			report.Fleets = append(report.Fleets, out)
		}
	}
	return report
}

// Reward adds what an answer turned out to be worth to the fleet that gave it, and says whether there
// is such a fleet. A generation below 0 is the newest that gets requests, if one does.
func (r *Router) Reward(endpoint, variant string, generation int64, reward float64) bool {
	e := r.table.Load().byName[endpoint]
	if e == nil {
		return false
	}
	at := -1
	for i := range e.of.Fleets {
		f := &e.of.Fleets[i]
		if f.Variant == variant && (f.Generation == generation || generation < 0 && (at < 0 || likelier(f, &e.of.Fleets[at]))) {
			at = i
		}
	}
	if at >= 0 {
		e.fleets[at].shards[0].rewards.add(reward)
	}
	return at >= 0
}

// likelier says that an answer of a variant is rather of one fleet than of another.
func likelier(f, other *route.Fleet) bool {
	if (f.Weight > 0) != (other.Weight > 0) {
		return f.Weight > 0
	}
	return f.Generation > other.Generation
}

func (f *fleet) report(endpoint string, of *route.Fleet, now time.Duration) route.FleetReport {
	out := route.FleetReport{Endpoint: endpoint, Variant: of.Variant, Generation: of.Generation, Waiting: f.waiting.Load()}
	f.sum(&out, now)
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
func (f *fleet) sum(out *route.FleetReport, now time.Duration) {
	busy := time.Duration(0)
	for i := range f.shards {
		s := &f.shards[i]
		out.Requests += s.requests.Load()
		out.Errors += s.errors.Load()
		out.Refused += s.refused.Load()
		busy += s.busy.until(now)
		histogram(&out.Latency, &s.latency)
		out.Logs = out.Logs.Plus(s.logs.read())
		out.Rewards = out.Rewards.Plus(s.rewards.read())
	}
	out.Busy = busy.Seconds()
}
