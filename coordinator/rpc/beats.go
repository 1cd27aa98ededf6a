package rpc

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// BeatEvery is how often an agent beats, and how often a coordinator passes beats on.
const BeatEvery = cluster.LeaseTime / 10

// Beats collects the beats that agents send to this coordinator and passes them on to
// the leader in one message, wherever it is.
type Beats struct {
	pass func(ctx context.Context, nodes []string) (unknown []string, err error)
	log  *slog.Logger

	mu      sync.Mutex
	waiting map[string]bool // nodes that beat since the last round
	unknown map[string]bool // nodes that the leader asks to introduce themselves again
	passed  time.Time       // when the leader last took a round
}

// NewBeats makes a collector; pass hands nodes' ids to the leader.
func NewBeats(pass func(ctx context.Context, nodes []string) ([]string, error), log *slog.Logger) *Beats {
	return &Beats{pass: pass, log: log, waiting: map[string]bool{}, unknown: map[string]bool{}}
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

// fresh reports whether the leader took beats a moment ago: leases are being renewed.
func (b *Beats) fresh() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Since(b.passed) < 3*BeatEvery
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
	b.passed = time.Now()
	for _, node := range unknown {
		b.unknown[node] = true
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
