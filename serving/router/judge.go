package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/clary-ml/clary/serving/router/loop"
)

const (
	judgeEvery   = time.Second
	windowEvery  = 5 // judgements to a window
	patience     = 5 // failures in a row until a replica is left out
	unreachable  = 3 // how many of those a failed connection is
	firstOut     = 2 * time.Second
	longestOut   = 5 * time.Minute
	leastWindow  = 20 // requests that say something of a replica
	outlierTimes = 4  // a mean latency so many times that of the others stands out
	leastLate    = 20 * time.Millisecond
	idleWire     = 45 * time.Second
	leastBudget  = 10 // retries a second, whatever is asked
	retryShare   = 5  // and one for so many requests
)

// judge takes note of how an attempt went.
func (c *session) judge(m *replica, got *outcome, began time.Duration) {
	shard := c.shard()
	if got.how != answered {
		c.now = c.r.group.Now()
		got.took = c.now - began
	}
	shard.busy.end(began, c.now)
	c.x.fleet.leave(m)
	bad := false
	switch got.how {
	case answered:
		bad = c.x.Status >= 500
		shard.answered(c.x.Took, bad)
	case cut:
		bad = !errors.Is(got.err, loop.ErrStopped)
		shard.lost()
	case left:
		waited := got.took
		if c.x.Took > 0 { // its answer had begun
			waited = c.x.Took
		}
		shard.left(waited)
		return
	case failed:
		if errors.Is(got.err, loop.ErrStopped) || got.stale && !errors.Is(got.err, os.ErrDeadlineExceeded) {
			return // an old connection that ended says nothing of its replica
		}
		bad = true
	}
	if !bad {
		if m.streak.Load() != 0 {
			m.streak.Store(0)
		}
		m.window.good.Add(1)
		m.window.nanos.Add(int64(c.x.Took))
		return
	}
	m.window.bad.Add(1)
	weight := int64(1)
	if !got.sent {
		weight = unreachable
	}
	if m.streak.Add(weight) >= patience && !m.out.Load() {
		why := fmt.Sprintf("the last requests in a row failed, with status %d", c.x.Status)
		if got.err != nil {
			why = fmt.Sprintf("the last requests in a row failed: %v", got.err)
		}
		c.r.eject(c.x.fleet, m, why, !got.sent)
	}
}

// shard is where the request counts.
func (c *session) shard() *shard {
	if c.origin == Mirrored {
		return &c.r.mirrored // where nobody looks
	}
	return &c.x.fleet.shards[c.strand.Loop()]
}

// eject leaves a replica out, unless too many are already: half of a fleet, or if it is certain that
// the replica is of no use all but one.
func (r *Router) eject(f *fleet, m *replica, why string, certain bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	members, out := *f.members.Load(), 0
	for _, other := range members {
		if other.out.Load() {
			out++
		}
	}
	most := len(members) / 2
	if certain {
		most = len(members) - 1
	}
	if m.out.Load() || out >= most {
		return
	}
	now := r.group.Now()
	m.mu.Lock()
	v := &m.verdict
	if now-v.back > longestOut {
		v.times = 0
	}
	v.why, v.until = why, now+min(firstOut<<min(v.times, 20), longestOut)
	v.times++
	m.mu.Unlock()
	m.out.Store(true)
	r.options.Log.Warn("replica is left out", "endpoint", f.endpoint.name, "variant", f.of.Load().Variant, "replica", m.ID, "why", why)
}

// readmit lets a replica have requests again.
func (r *Router) readmit(f *fleet, m *replica) {
	m.mu.Lock()
	m.verdict.why, m.verdict.back = "", r.group.Now()
	m.mu.Unlock()
	m.streak.Store(0)
	m.out.Store(false)
	r.options.Log.Info("replica is back", "endpoint", f.endpoint.name, "replica", m.ID)
	f.kick()
}

// preside judges replicas and asks the sick ones how they are, until ctx is done.
func (r *Router) preside(ctx context.Context) {
	ticker := time.NewTicker(judgeEvery)
	defer ticker.Stop()
	for round := 1; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		t := r.table.Load()
		for _, e := range t.byName {
			recent := int64(0)
			for _, f := range e.fleets {
				requests := f.requests()
				recent += requests - f.counted
				f.counted = requests
				r.visit(ctx, f)
				if round%windowEvery == 0 {
					r.compare(f)
				}
			}
			e.budget.Store(leastBudget + recent/retryShare)
		}
	}
}

func (f *fleet) requests() int64 {
	n := int64(0)
	for i := range f.shards {
		n += f.shards[i].requests.Load()
	}
	return n
}

// visit asks replicas that are left out, and those that are new, how they are.
func (r *Router) visit(ctx context.Context, f *fleet) {
	now := r.group.Now()
	for _, m := range *f.members.Load() {
		m.prune(now - idleWire)
		m.mu.Lock()
		due := m.out.Load() && now >= m.verdict.until || !m.verdict.known
		m.verdict.known = true
		m.mu.Unlock()
		if !due || m.visited.Swap(true) {
			continue
		}
		r.visits.Go(func() {
			defer m.visited.Store(false)
			err := r.ping(ctx, m)
			switch {
			case ctx.Err() != nil:
			case err == nil && m.out.Load():
				r.readmit(f, m)
			case err != nil && m.out.Load():
				r.extend(m, err)
			case err != nil:
				r.eject(f, m, fmt.Sprintf("GET /ping: %v", err), true)
			}
		})
	}
}

// extend leaves a replica out for longer.
func (r *Router) extend(m *replica, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.verdict.why = fmt.Sprintf("GET /ping: %v", err)
	m.verdict.until = r.group.Now() + min(firstOut<<min(m.verdict.times, 20), longestOut)
	m.verdict.times++
}

// compare leaves out replicas that do much worse than the others of their fleet.
func (r *Router) compare(f *fleet) {
	members := *f.members.Load()
	seen := make([]sample, len(members))
	for i, m := range members {
		seen[i] = sample{m.window.good.Swap(0), m.window.bad.Swap(0), time.Duration(m.window.nanos.Swap(0))}
	}
	for i, m := range members {
		if why := stands(seen, i); why != "" {
			r.eject(f, m, why, false)
		}
	}
}

// sample is what a replica did in a window: Spent is the time of the good ones.
type sample struct {
	good, bad int64
	spent     time.Duration
}

// stands says why one of the replicas stands out, if it does: where others succeed it fails half of
// its requests or more, or it takes several times as long as they do.
func stands(seen []sample, i int) string {
	me := seen[i]
	if me.good+me.bad < leastWindow {
		return ""
	}
	var means []time.Duration
	good, all := int64(0), int64(0)
	for j, s := range seen {
		if j == i || s.good+s.bad < leastWindow {
			continue
		}
		good, all = good+s.good, all+s.good+s.bad
		if s.good > 0 {
			means = append(means, s.spent/time.Duration(s.good))
		}
	}
	if all == 0 {
		return ""
	}
	rate, others := float64(me.good)/float64(me.good+me.bad), float64(good)/float64(all)
	if rate < others/2 {
		return fmt.Sprintf("%.0f %% of its requests succeed, and %.0f %% of the others'", 100*rate, 100*others)
	}
	if len(means) == 0 || me.good == 0 {
		return ""
	}
	slices.Sort(means)
	mine, middle := me.spent/time.Duration(me.good), means[len(means)/2]
	if mine > outlierTimes*middle && mine > middle+leastLate {
		return fmt.Sprintf("it takes %v a request, and the others %v", mine.Round(time.Microsecond), middle.Round(time.Microsecond))
	}
	return ""
}
