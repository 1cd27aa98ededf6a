package router

import (
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router/loop"
)

// fleet is one variant's replicas of one generation, as long as tables name it.
type fleet struct {
	of       atomic.Pointer[route.Fleet]
	endpoint *endpoint
	members  atomic.Pointer[[]*replica] // that may get requests
	shards   []shard                    // counts, one for each loop

	waiting atomic.Int64
	mu      sync.Mutex
	queue   []*waiter  // in the order they came
	all     []*replica // draining ones too
	ended   bool       // no table has it
	counted int64      // requests at the last judgement
}

// setMembers is for the table's keeper.
func (f *fleet) setMembers(all, members []*replica, of *route.Fleet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = all
	f.members.Store(&members)
	f.of.Store(of)
}

// waiter is a request that waits for a place at a replica.
type waiter struct {
	strand *loop.Strand
	want   *want
	got    atomic.Pointer[replica]
	moved  atomic.Bool // its fleet is no more
}

// want is what a request asks of the choice of its replica.
type want struct {
	key   uint64      // of its session; 0 is none
	avoid [4]*replica // where it has failed, the last ones
	from  uint32      // where to begin looking
	most  int64       // requests that a replica may have
}

func (w *want) avoids(r *replica) bool {
	return r == w.avoid[0] || r == w.avoid[1] || r == w.avoid[2] || r == w.avoid[3]
}

// choose takes a place at the replica that has the least to do, or at that of the session. It returns
// nil if there is none free.
func (f *fleet) choose(w *want) *replica {
	members := *f.members.Load()
	if w.key != 0 {
		if home := home(members, w); home != nil {
			if home.take(w.most) {
				return home
			}
			return nil
		}
	}
	for {
		best, well := least(members, w, true)
		if !well { // some answer may be better than none
			best, _ = least(members, w, false)
		}
		if best == nil || best.take(w.most) {
			return best
		}
	}
}

// take counts a request in, unless the replica has as many as it may.
func (r *replica) take(most int64) bool {
	if r.flying.Add(1) <= most {
		return true
	}
	r.flying.Add(-1)
	return false
}

// least is the replica with the fewest requests; nil if all have as many as they may. Picky leaves
// out those that are ejected or avoided, and well says that there are others.
func least(members []*replica, w *want, picky bool) (best *replica, well bool) {
	fewest := w.most
	n := uint32(len(members))
	for i := range n {
		r := members[(w.from+i)%n]
		if picky && (w.avoids(r) || r.out.Load()) {
			continue
		}
		well = true
		if load := r.flying.Load(); load < fewest {
			if best, fewest = r, load; load == 0 {
				break
			}
		}
	}
	return best, well
}

// home is where a session lives: the member with the highest score (rendezvous hashing, Thaler and
// Ravishankar 1998), so that a change of members moves only the sessions of those that went.
func home(members []*replica, w *want) *replica {
	var best *replica
	highest := uint64(0)
	for _, r := range members {
		if w.avoids(r) || r.out.Load() {
			continue
		}
		if score := mix(w.key ^ r.hash); best == nil || score > highest {
			best, highest = r, score
		}
	}
	return best
}

// over reports that no table has the fleet any more.
func (f *fleet) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended
}

// enter gets a request its place at a replica: at once, after waiting in the queue, or not at all. It
// returns nothing if the fleet is over: then the table has others.
func (f *fleet) enter(c *session, w *want, l *route.Limits) (*replica, *refusal) {
	if f.waiting.Load() == 0 {
		if r := f.choose(w); r != nil {
			return r, nil
		}
	}
	cold := f.of.Load().Cold
	if len(*f.members.Load()) == 0 && !cold {
		if f.over() {
			return nil, nil
		}
		return nil, refuse(http.StatusServiceUnavailable, "endpoint %q: variant %q has no replica that is ready: try again in a moment; clary endpoint status %s says why",
			f.endpoint.name, f.of.Load().Variant, f.endpoint.name).retry(1)
	}
	queue := &f.endpoint.waiting
	if c.origin == Mirrored {
		queue = &c.r.copies // they are few, and take nobody's place
	}
	if queue.Add(1) > int64(l.Queue) {
		queue.Add(-1)
		if r := f.pass(w); r != nil {
			return r, nil
		}
		return nil, refuse(http.StatusTooManyRequests, "endpoint %q: its queue of %d requests is full: send fewer at a time, add replicas, or raise limits.queue", f.endpoint.name, l.Queue).retry(1)
	}
	defer queue.Add(-1)
	patience := l.QueueTime
	if cold {
		patience = l.HoldTime
		c.r.askWake()
	}
	me := &waiter{strand: c.strand, want: w}
	f.mu.Lock()
	me.moved.Store(f.ended)
	f.queue = append(f.queue, me)
	f.waiting.Add(1)
	f.grant()
	f.mu.Unlock()
	if r, no := f.await(c, me, patience); no != late {
		return r, no
	}
	if cold {
		return nil, refuse(http.StatusServiceUnavailable, "endpoint %q: no replica of variant %q was ready within %s: try again, or raise limits.hold_time; clary endpoint status %s says why",
			f.endpoint.name, f.of.Load().Variant, patience, f.endpoint.name).retry(1)
	}
	return nil, refuse(http.StatusServiceUnavailable, "endpoint %q: no replica had room within %s: try again, add replicas, or raise limits.queue_time", f.endpoint.name, patience).retry(1)
}

// pass is for who finds the queue full: if all in it wait for their session's replica, others may be free,
// and who asks those overtakes nobody.
func (f *fleet) pass(w *want) *replica {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, other := range f.queue {
		if other.want.key == 0 || other.want.key == w.key {
			return nil
		}
	}
	return f.choose(w)
}

func (f *fleet) await(c *session, me *waiter, patience time.Duration) (*replica, *refusal) {
	c.strand.SetDeadline(c.r.group.Now() + patience)
	var err error
	for me.got.Load() == nil && !me.moved.Load() && err == nil {
		if c.sock.Gone() {
			err = loop.ErrGuard
			break
		}
		err = c.strand.Park()
	}
	f.mu.Lock()
	for i, w := range f.queue {
		if w == me {
			f.queue = append(f.queue[:i], f.queue[i+1:]...)
			f.waiting.Add(-1)
			break
		}
	}
	f.mu.Unlock()
	c.strand.SetDeadline(0)
	c.now = c.r.group.Now()
	got := me.got.Load()
	switch {
	case got != nil && err == nil:
		return got, nil
	case got != nil: // it came too late
		f.leave(got)
	}
	switch {
	case err == nil:
		return nil, nil // moved: ask the table again
	case err == loop.ErrGuard:
		return nil, goneClient
	case err == loop.ErrStopped:
		return nil, refuse(http.StatusServiceUnavailable, "the router ends: ask again").retry(1).closing()
	}
	return nil, late
}

// late is a request that has waited as long as it may.
var late = &refusal{}

// goneClient is a client that does not wait for its answer any more.
var goneClient = &refusal{code: 499, close: true, text: "the client has gone"}

// leave gives a place back.
func (f *fleet) leave(r *replica) {
	r.flying.Add(-1)
	if f.waiting.Load() > 0 {
		f.kick()
	}
}

// kick gives free places to who waits.
func (f *fleet) kick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grant()
}

// grant gives places in the order of the queue; who waits for one replica alone does not hold up
// the others. The lock is held.
func (f *fleet) grant() {
	kept := f.queue[:0]
	full := false
	for _, w := range f.queue {
		var r *replica
		if !full || w.want.key != 0 {
			r = f.choose(w.want)
			full = full || r == nil && w.want.key == 0
		}
		if r == nil {
			kept = append(kept, w)
			continue
		}
		f.waiting.Add(-1)
		w.got.Store(r)
		w.strand.Wake()
	}
	clear(f.queue[len(kept):])
	f.queue = kept
}

// end sends those that wait to ask the table again.
func (f *fleet) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for _, w := range f.queue {
		w.moved.Store(true)
		w.strand.Wake()
	}
	f.waiting.Add(-int64(len(f.queue)))
	f.queue = nil
}

// mix spreads bits (the finalizer of SplitMix64, Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hashOf is FNV-1a, mixed, and never 0.
func hashOf[T string | []byte](text T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return max(mix(h), 1)
}

// unit is a hash as a number above 0 and below 1.
func unit(h uint64) float64 { return (float64(h>>11) + 0.5) / (1 << 53) }

// share draws among weights: each index with a chance that is its weight's part of the sum; -1 if
// the sum is 0.
func share(weights []float64, draw float64) int {
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	at := -1
	for i, w := range weights {
		if w <= 0 {
			continue
		}
		at = i
		if draw -= w / sum; draw < 0 {
			break
		}
	}
	return at
}

// settle is share by the name of a session instead of chance: each weight's part of the sessions, and
// only as many move as a change of weights asks for (weighted rendezvous: Schindelhauer and Schomaker 2005).
func settle(weights []float64, hashes []uint64, key uint64) int {
	at, best := -1, math.Inf(-1)
	for i, w := range weights {
		if w <= 0 {
			continue
		}
		if score := -w / math.Log(unit(mix(key^hashes[i]))); score > best {
			at, best = i, score
		}
	}
	return at
}
