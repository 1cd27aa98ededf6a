package rpc

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// BeatEvery is how often an agent beats, and how often a coordinator passes beats on.
const BeatEvery = cluster.LeaseTime / 10

// fresh is how old the newest beat that the leader took may be for the agent to be told
// that its lease is renewed.
const fresh = 3 * BeatEvery

// AgentLease is what an agent may count on, from the sending of a beat that was
// acknowledged as renewing its lease. The leader may have taken none since fresh before,
// and declares the node lost a whole lease after that: by then an exclusive task must
// have ended.
const AgentLease = cluster.LeaseTime - fresh - BeatEvery

// Beats collects the beats that agents send to this coordinator and passes them on to
// the leader in one message, wherever it is.
type Beats struct {
	pass func(ctx context.Context, nodes []string) (unknown []string, err error)
	log  *slog.Logger

	mu      sync.Mutex
	waiting map[string]bool      // nodes that beat since the last round
	unknown map[string]bool      // nodes that the leader asks to introduce themselves again
	passed  map[string]time.Time // when the last round began in which the leader took the node's beat
}

// NewBeats makes a collector; pass hands nodes' ids to the leader.
func NewBeats(pass func(ctx context.Context, nodes []string) ([]string, error), log *slog.Logger) *Beats {
	return &Beats{pass: pass, log: log, waiting: map[string]bool{}, unknown: map[string]bool{}, passed: map[string]time.Time{}}
}

// add notes one beat, and reports whether the node must introduce itself again.
func (b *Beats) add(node string) (again bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting[node] = true
	again = b.unknown[node]
	delete(b.unknown, node)
	return again
}

// renewed reports whether the leader took the node's beats until a moment ago.
func (b *Beats) renewed(node string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	passed, ever := b.passed[node]
	return ever && time.Since(passed) < fresh
}

// Run passes beats on until ctx ends. Beats that the leader did not take wait for the
// next round.
func (b *Beats) Run(ctx context.Context) error {
	ticker := time.NewTicker(BeatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			b.round(ctx)
		}
	}
}

func (b *Beats) round(ctx context.Context) {
	nodes := b.take()
	if len(nodes) == 0 {
		return
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 2*BeatEvery)
	defer cancel()
	unknown, err := b.pass(ctx, nodes)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.log.Debug("beats not passed on", "nodes", len(nodes), "error", err)
		for _, node := range nodes {
			b.waiting[node] = true
		}
		return
	}
	maps.DeleteFunc(b.passed, func(_ string, at time.Time) bool { return began.Sub(at) >= fresh })
	for _, node := range nodes {
		b.passed[node] = began
	}
	for _, node := range unknown {
		b.unknown[node] = true
		delete(b.passed, node)
	}
}

func (b *Beats) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var nodes []string
	for node := range b.waiting {
		nodes = append(nodes, node)
	}
	clear(b.waiting)
	return nodes
}
