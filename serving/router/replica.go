package router

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/serving/router/loop"
)

// replica is one server as long as tables name it: what is known of it outlives each table.
type replica struct {
	route.Replica
	hash    uint64         // of its ID, for rendezvous
	where   netip.AddrPort // its address, if that is an IP address
	pools   []pool         // one for each loop
	flying  atomic.Int64   // requests that it has
	out     atomic.Bool    // ejected
	gone    atomic.Bool    // no table has it any more
	streak  atomic.Int64   // what has gone wrong since something went right
	visited atomic.Bool    // somebody asks it just now
	window  window         // since the last judgement
	mu      sync.Mutex
	verdict verdict
}

// window is what a replica did in a while.
type window struct {
	good, bad, nanos atomic.Int64
}

// verdict is why and until when a replica is left out.
type verdict struct {
	why   string
	until time.Duration
	times int // in a row
	back  time.Duration
	known bool // it has answered, or was asked, once
}

func newReplica(of route.Replica, loops int) *replica {
	r := &replica{Replica: of, hash: hashOf(of.ID), pools: make([]pool, loops)}
	for i := range r.pools {
		r.pools[i].orphan = r.pools[i].drop
	}
	if at, err := netip.ParseAddrPort(of.Address); err == nil && !of.Gateway {
		r.where = at
	}
	return r
}

// wire is a connection to a replica.
type wire struct {
	net.Conn
	sock  *loop.Sock // nil if it is some other library's connection
	since time.Duration
	used  bool // it has brought an answer before
}

// alive asks some other library's connection whether it can be used again, if it can tell.
func (w *wire) alive() bool {
	c, tells := w.Conn.(interface{ Alive() bool })
	return !tells || c.Alive()
}

// pool keeps the idle connections of one loop to one replica.
type pool struct {
	mu     sync.Mutex
	idle   []*wire
	orphan func(*loop.Sock) // drop, made a value once
	_      [24]byte         // a line of its own
}

const maxIdle = 1024

// get takes the connection that was used last, if there is one that is still good.
func (p *pool) get(s *loop.Strand) *wire {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		w := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if w.sock == nil {
			if w.alive() {
				return w
			}
			_ = w.Close()
			continue
		}
		w.sock.Own(s)
		if !w.sock.Readable() {
			return w
		}
		_ = w.Close() // what comes unasked is of no good
	}
	return nil
}

// put keeps a connection for the next request.
func (p *pool) put(w *wire, now time.Duration) {
	w.since = now
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) >= maxIdle {
		_ = w.Close()
		return
	}
	p.idle = append(p.idle, w)
	if w.sock != nil {
		w.sock.Give(p.orphan)
		if w.sock.Gone() { // it may have gone before there was somebody to tell
			p.idle = p.idle[:len(p.idle)-1]
			_ = w.Close()
		}
	}
}

// drop forgets a connection that its replica has closed.
func (p *pool) drop(sock *loop.Sock) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, w := range p.idle {
		if w.sock == sock {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			_ = w.Close()
			return
		}
	}
}

// prune closes what has been idle since before some time.
func (p *pool) prune(before time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[:0]
	for _, w := range p.idle {
		if w.since < before {
			_ = w.Close()
		} else {
			kept = append(kept, w)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
}

// release keeps a connection, unless nobody will use it.
func (r *replica) release(w *wire, at int, now time.Duration) {
	if r.gone.Load() {
		_ = w.Close()
		return
	}
	r.pools[at].put(w, now)
	if r.gone.Load() { // it went while we did
		r.prune(now + 1)
	}
}

func (r *replica) prune(before time.Duration) {
	for i := range r.pools {
		r.pools[i].prune(before)
	}
}
