package modelserver

import (
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/clary-ml/clary/internal/fault"
)

// Gate lets requests in as long as their number and bytes are within bounds.
type Gate struct {
	maxRequests, maxBytes int64
	requests, bytes       atomic.Int64
}

// NewGate makes a gate for so many requests at once, with bodies of so many bytes together.
func NewGate(maxRequests int, maxBytes int64) *Gate {
	return &Gate{maxRequests: int64(maxRequests), maxBytes: maxBytes}
}

// Requests are how many are inside.
func (g *Gate) Requests() int64 { return g.requests.Load() }

// Enter takes a place for a request with a body of so many bytes, or refuses it.
func (g *Gate) Enter(size int64) error {
	if n := g.requests.Add(1); n > g.maxRequests {
		g.requests.Add(-1)
		return fault.New(fault.Exhausted, "%d requests are worked on or wait already: try again in a moment, or give the model more replicas", g.maxRequests)
	}
	if n := g.bytes.Add(size); n > g.maxBytes {
		g.Leave(size)
		return fault.New(fault.Exhausted, "the bodies of requests that are worked on have %d bytes already: try again in a moment, or send smaller ones", g.maxBytes)
	}
	return nil
}

// Leave gives the place of such a request back.
func (g *Gate) Leave(size int64) {
	g.bytes.Add(-size)
	g.requests.Add(-1)
}

// handlers are the HTTP requests that are being answered, for the end to wait for.
type handlers struct {
	mu    sync.Mutex
	ended bool
	wait  sync.WaitGroup
}

// counted answers what comes before the end.
func (h *handlers) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.begin() {
			panic(http.ErrAbortHandler) // its connection is closed already
		}
		defer h.wait.Done()
		next.ServeHTTP(w, r)
	})
}

func (h *handlers) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.wait.Add(1)
	}
	return !h.ended
}

// end lets no more begin, and waits for those that have.
func (h *handlers) end() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	h.wait.Wait()
}
