package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func startMember(t *testing.T, id, rpc string, key byte, log *syncBuffer, seeds ...string) (*Gossip, func()) {
	t.Helper()
	g, err := Start(Config{
		Self: Member{Role: Coordinator, ID: id, RPC: rpc}, Bind: "127.0.0.1:0", Keys: [][]byte{bytes.Repeat([]byte{key}, KeySize)}, Seeds: seeds,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = g.Run(ctx) })
	stop := sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	return g, stop
}

// until waits for a condition on the members, woken by their changes.
func until(t *testing.T, g *Gossip, what string, holds func() bool) {
	t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		changed := g.Changed()
		if holds() {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("waited 15 s for %s; members: %+v", what, g.Members())
		}
	}
}

func TestOneSeedIsEnoughToFindEverybody(t *testing.T) {
	log := &syncBuffer{}
	first, _ := startMember(t, "a", "a:1", 1, log)
	all := []*Gossip{first}
	for i := range 3 {
		member, _ := startMember(t, fmt.Sprintf("m%d", i), "x:1", 1, log, first.Address())
		all = append(all, member)
	}
	for _, member := range all {
		until(t, member, "four members", func() bool { return len(member.Members()) == 4 })
	}
	if found, ok := all[3].Find(Coordinator, "a"); !ok || found.RPC != "a:1" || found.Gossip != first.Address() {
		t.Errorf("found %+v, %v", found, ok)
	}
}

func TestAMemberThatMovesIsFoundUnderItsID(t *testing.T) {
	log := &syncBuffer{}
	first, _ := startMember(t, "a", "a:1", 1, log)
	_, stop := startMember(t, "b", "old:1", 1, log, first.Address())
	until(t, first, "b", func() bool { _, ok := first.Find(Coordinator, "b"); return ok })
	stop()
	startMember(t, "b", "new:2", 1, log, first.Address())
	until(t, first, "b at its new address", func() bool { b, ok := first.Find(Coordinator, "b"); return ok && b.RPC == "new:2" })
}

func TestAnotherKeyIsRefusedAndSaidSo(t *testing.T) {
	log := &syncBuffer{}
	first, _ := startMember(t, "a", "a:1", 1, log)
	stranger, _ := startMember(t, "s", "s:1", 2, &syncBuffer{}, first.Address())
	if _, err := stranger.list.Join([]string{first.Address()}); err == nil {
		t.Fatal("a member with another key could join")
	}
	if len(first.Members()) != 1 || len(stranger.Members()) != 1 {
		t.Errorf("they see each other: %v, %v", first.Members(), stranger.Members())
	}
	if !strings.Contains(log.String(), "another gossip key") {
		t.Errorf("the log does not say so: %s", log.String())
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	key := make([]byte, KeySize)
	for name, config := range map[string]Config{
		"short key": {Bind: "127.0.0.1:0", Keys: [][]byte{key[:16]}, Log: log},
		"no port":   {Bind: "127.0.0.1", Keys: [][]byte{key}, Log: log},
		"bad port":  {Bind: "127.0.0.1:http", Keys: [][]byte{key}, Log: log},
		"advertise": {Bind: "127.0.0.1:0", Advertise: "nowhere", Keys: [][]byte{key}, Log: log},
	} {
		if g, err := Start(config); err == nil {
			g.leave()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAKeyIsReplacedInThreeStepsAndNobodyIsMissed(t *testing.T) {
	log := &syncBuffer{}
	a, _ := startMember(t, "a", "a:1", 1, log)
	b, _ := startMember(t, "b", "b:1", 1, log, a.Address())
	until(t, a, "b", func() bool { _, ok := a.Find(Coordinator, "b"); return ok })
	old, young := bytes.Repeat([]byte{1}, KeySize), bytes.Repeat([]byte{2}, KeySize)
	for _, keys := range [][][]byte{{old, young}, {young, old}, {young}} {
		for _, g := range []*Gossip{a, b} { // one after the other: in between they differ
			if err := g.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
			if _, err := b.list.Join([]string{a.Address()}); err != nil {
				t.Fatalf("with keys that differ by a step: %v", err)
			}
		}
	}
	late, _ := startMember(t, "late", "l:1", 1, &syncBuffer{})
	if _, err := late.list.Join([]string{a.Address()}); err == nil {
		t.Error("the old key is still understood")
	}
	if len(a.Members()) != 2 || len(b.Members()) != 2 {
		t.Errorf("they see %v and %v", a.Members(), b.Members())
	}
	for _, keys := range [][][]byte{nil, {old[:16]}} {
		if err := a.SetKeys(keys); err == nil {
			t.Errorf("%d keys were taken", len(keys))
		}
	}
}

func TestWhoIsRefusedIsNoMember(t *testing.T) {
	log := &syncBuffer{}
	a, _ := startMember(t, "a", "a:1", 1, log)
	startMember(t, "b", "b:1", 1, log, a.Address())
	until(t, a, "b", func() bool { _, ok := a.Find(Coordinator, "b"); return ok })
	a.Refuse(func(role, id string) bool { return role == Coordinator && (id == "b" || id == "c") })
	if _, ok := a.Find(Coordinator, "b"); ok || len(a.Members()) != 1 {
		t.Error("who was a member is still one")
	}
	c, _ := startMember(t, "c", "c:1", 1, log)
	_, _ = c.list.Join([]string{a.Address()})
	for _, node := range a.list.Members() {
		if strings.HasPrefix(node.Name, "coordinator/c/") {
			t.Error("who is refused came in")
		}
	}
	a.Refuse(nil)
	if _, ok := a.Find(Coordinator, "b"); !ok {
		t.Error("who is refused no more is not seen")
	}
}
