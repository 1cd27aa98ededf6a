package state

import "sync"

// Kind is a sort of stored noun.
type Kind string

// The kinds of stored nouns.
const (
	KindJob         Kind = "job"
	KindGang        Kind = "gang"
	KindTask        Kind = "task"
	KindNode        Kind = "node"
	KindQueue       Kind = "queue"
	KindToken       Kind = "token"
	KindSecret      Kind = "secret"
	KindDeed        Kind = "deed"
	KindTrust       Kind = "trust"
	KindPublication Kind = "publication"
	KindSweep       Kind = "sweep"
	KindTrial       Kind = "trial"
	KindEndpoint    Kind = "endpoint"
	KindModel       Kind = "model"
	KindVersion     Kind = "version"
	KindSettings    Kind = "settings"
	KindArchived    Kind = "archived" // a job that is
	KindFormat      Kind = "format"   // there is one
)

// Change says that a noun was written or deleted.
type Change struct {
	Kind     Kind
	ID       string
	Revision uint64 // of the command
	Deleted  bool
	Node     string // of a task: where it is
	Ended    bool   // of a task: it holds nothing any more
}

// Batch is what a subscriber receives: the changes of one or more commands in the
// order they were applied. Lost says that others are missing: read a snapshot anew.
type Batch struct {
	Changes []Change
	Lost    bool
}

// backlog is how many batches a subscriber may be behind before it loses some.
const backlog = 256

// Bus tells subscribers what has changed. A batch is published after its transaction,
// so a snapshot opened on receiving it shows what it tells of, or something newer.
type Bus struct {
	mu     sync.Mutex
	subs   map[*Subscription]struct{}
	closed bool
}

// Subscription receives the changes that its filter lets through. C is closed by Close
// and when the store is closed.
type Subscription struct {
	C      <-chan Batch
	c      chan Batch
	filter func(Change) bool
	bus    *Bus
}

func newBus() *Bus { return &Bus{subs: map[*Subscription]struct{}{}} }

// Subscribe starts a subscription with the next batch. The filter must be fast, and
// pure; nil lets everything through. To miss nothing, subscribe first, then read a
// snapshot.
func (b *Bus) Subscribe(filter func(Change) bool) *Subscription {
	c := make(chan Batch, backlog)
	s := &Subscription{C: c, c: c, filter: filter, bus: b}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		close(c)
		return s
	}
	b.subs[s] = struct{}{}
	return s
}

// Close ends the subscription. A second Close does nothing.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	if _, open := s.bus.subs[s]; open {
		delete(s.bus.subs, s)
		close(s.c)
	}
}

func (b *Bus) publish(changes []Change) {
	if len(changes) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		if wanted := s.wanted(changes); len(wanted) > 0 {
			s.offer(Batch{Changes: wanted})
		}
	}
}

// lose tells every subscriber that it missed something.
func (b *Bus) lose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.offer(Batch{Lost: true})
	}
}

func (b *Bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for s := range b.subs {
		delete(b.subs, s)
		close(s.c)
	}
}

// offer never waits. The channel's last place is only ever taken by a Lost batch, so
// when it is full, whatever is dropped comes before a Lost batch that is still unread.
func (s *Subscription) offer(batch Batch) {
	switch room := cap(s.c) - len(s.c); {
	case room > 1:
		s.c <- batch
	case room == 1:
		s.c <- Batch{Lost: true}
	}
}

func (s *Subscription) wanted(changes []Change) []Change {
	if s.filter == nil {
		return changes
	}
	var wanted []Change
	for _, change := range changes {
		if s.filter(change) {
			wanted = append(wanted, change)
		}
	}
	return wanted
}
