package rpc

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// leader takes beats as a keeper would, and notes when.
type leader struct {
	mu      sync.Mutex
	away    bool
	unknown []string
	rounds  int
	heard   map[string]time.Time
}

func (l *leader) pass(_ context.Context, nodes []string) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return nil, errors.New("electing")
	}
	l.rounds++
	for _, node := range nodes {
		if !slices.Contains(l.unknown, node) {
			l.heard[node] = time.Now()
		}
	}
	return l.unknown, nil
}

// last is when the leader last heard a node, zero if never.
func (l *leader) last(node string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard[node]
}

func (l *leader) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func collecting(t *testing.T) (*Beats, *leader) {
	l := &leader{heard: map[string]time.Time{}}
	b := NewBeats(l.pass, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return b, l
}

func TestBeatsGoToTheLeaderInRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, l := collecting(t)
		time.Sleep(5*BeatEvery + BeatEvery/2) // between two rounds, not at one
		l.set(func() {
			if l.rounds != 0 {
				t.Error("rounds without beats")
			}
		})
		for range 10 {
			b.add("n1")
			b.add("n2")
		}
		time.Sleep(BeatEvery + time.Millisecond)
		l.set(func() {
			if l.rounds != 1 || len(l.heard) != 2 {
				t.Errorf("%d rounds, heard %v", l.rounds, l.heard)
			}
		})
	})
}

func TestALeaseIsRenewedOnlyWhileTheLeaderTakesTheNodesOwnBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, l := collecting(t)
		b.add("n1")
		if b.renewed("n1") {
			t.Error("renewed before the leader has heard")
		}
		time.Sleep(BeatEvery + time.Millisecond)
		if !b.renewed("n1") || b.renewed("n2") {
			t.Error("what the leader took of n1 renews n1's lease, and nobody else's")
		}
		l.set(func() { l.away = true })
		for time.Since(l.last("n1")) < 2*cluster.LeaseTime {
			b.add("n1")
			// What the agent is told must end before the leader gives it up.
			if b.renewed("n1") && time.Since(l.last("n1"))+AgentLease >= cluster.LeaseTime {
				t.Fatalf("told that its lease is renewed %s after the leader last heard", time.Since(l.last("n1")))
			}
			time.Sleep(BeatEvery / 7)
		}
		l.set(func() { l.away = false })
		time.Sleep(2 * BeatEvery)
		if !b.renewed("n1") {
			t.Error("beats that were not taken are not passed on later")
		}
	})
}

func TestALostNodeIsAskedToIntroduceItselfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, l := collecting(t)
		l.set(func() { l.unknown = []string{"n1"} })
		if b.add("n1") || b.add("n2") {
			t.Error("asked before the leader was")
		}
		time.Sleep(BeatEvery + time.Millisecond)
		if b.renewed("n1") || !b.renewed("n2") {
			t.Error("an unknown node has no lease, a known one has")
		}
		if !b.add("n1") || b.add("n2") || b.add("n1") {
			t.Error("n1 is to be asked once, and n2 never")
		}
	})
}
