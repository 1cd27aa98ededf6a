package scheduler

import (
	"cmp"
	"container/heap"
	"iter"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/order"
)

// line is what waits in a queue and may be placed, and what runs of it.
type line struct {
	queue   cluster.Queue
	asks    []*waiter // active, in their order
	running map[string]*runner
	waits   int // gangs that wait, also those that are held or asleep

	guaranteed bool // the queue has a guarantee

	// of the round
	at      int  // the ask that is tried next
	closed  bool // what comes behind waits for what is before it
	stuck   int  // asks that found no room
	pressed int  // of them, those for which victims were sought
	denied  bool // a limit keeps the first of it from being placed
}

func (l *line) describe(q cluster.Queue) {
	l.queue = q.Effective()
	l.guaranteed = len(q.Guarantee) > 0
}

func (l *line) used() bool { return l.waits+len(l.running) > 0 }

// depth is how many of the line that found no room have some kept for them.
func (l *line) depth() int {
	if l.queue.Backfill == cluster.BackfillConservative {
		return conservativeDepth
	}
	return 1
}

// waiter is a gang that waits.
type waiter struct {
	Ask
	line   *line
	active bool  // in its line
	kept   bool  // there is a hold for it
	fresh  bool  // active, and not tried since
	until  int64 // asleep until then, if greater than zero
	since  int64 // when it was first passed over, 0 if it was not
	closes bool  // since all were tried last: nobody overtakes it in its line
	leads  bool  // something was done or sought for it, or it keeps others back: without it the next of its line has its turn
	press  look  // for victims
	calm   int64 // until then nobody is stopped for it
	vainly int   // since so often others had gone and it did not fit
	keep   look  // for room that could be kept
	frees  frees // the limit that it waits for
	turn   int64 // since, or when it last led a spell in vain
	elder  int64 // the least turn of it and of those behind it in its line: who has less goes before it
	lasts  int64 // the spell that it leads next
	known  *work
	rank   order.Rank // in a line that is ordered by what is left to do
}

// look is a search that found nothing: it finds nothing again until something moves, or until an instant.
type look struct {
	moves uint64
	at    int64
	again int64
}

// vain reports whether the search would find nothing again; if so, Plan looks again when it may.
func (r *round) vain(l look) bool {
	if l.again == 0 || l.moves != r.moves || l.again <= r.now {
		return false
	}
	r.recall(l.again)
	return true
}

func byAsk(a, b *waiter) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.rank, b.rank), Before(a.Ask, b.Ask))
}

// Wait notes a gang that waits, in place of what was known of it. Told again with the revision that is known,
// it changes nothing.
func (c *Cluster) Wait(ask Ask) {
	if old := c.waiting[ask.ID]; old != nil {
		if old.Revision == ask.Revision {
			return
		}
		c.unwait(old)
	} else if run := c.running[ask.ID]; run != nil {
		c.unrun(run)
	} else {
		c.wanted.note(ask.needs)
	}
	ask.needs = c.needs.get(ask.needs)
	w := &waiter{Ask: ask, line: c.line(ask.Queue), until: ask.NotBefore, since: ask.Since, turn: ask.Since, elder: ask.Since, known: c.workOf(ask.ID, ask.Class, ask.Submitted)}
	c.waiting[ask.ID] = w
	c.Room.Shield(ask.ID, ask.needs.away)
	w.line.waits++
	w.kept = c.holds[ask.ID] != nil
	switch {
	case ask.Held || ask.Stop:
		c.unhold(ask.ID)
	case w.until > 0:
		heap.Push(&c.asleep, sleeper{w.until, w})
	default:
		c.activate(w)
		if c.holds[ask.ID] != nil { // it may take what is kept for it, whosever turn it is
			c.gain()
		}
	}
}

// Pause keeps a gang that waits from being planned for a while.
func (c *Cluster) Pause(id string, until int64) {
	if w := c.waiting[id]; w != nil && w.active {
		c.deactivate(w)
		w.until = until
		heap.Push(&c.asleep, sleeper{until, w})
	}
}

// Drop forgets a gang that is gone. What it held on the nodes is told by SetNode, or given by End.
func (c *Cluster) Drop(id string) {
	c.leave(id)
	delete(c.works, id)
}

func (c *Cluster) leave(id string) {
	c.unhold(id)
	if w := c.waiting[id]; w != nil {
		c.unwait(w)
	}
	if run := c.running[id]; run != nil {
		c.unrun(run)
	}
}

// End takes a gang that ran for gone, and gives its room back. What it has done is remembered until Drop: it may wait again.
func (c *Cluster) End(id string) {
	if run := c.running[id]; run != nil {
		c.Room.Give(run.Allocations)
		c.Room.Settle()
		c.gain()
	}
	c.leave(id)
}

// Queued walks the gangs that may be placed, queue by queue in the order of their names, and in each as they go.
func (c *Cluster) Queued() iter.Seq[Ask] {
	return func(yield func(Ask) bool) {
		for _, l := range c.sorted {
			for _, w := range l.asks {
				if !yield(w.Ask) {
					return
				}
			}
		}
	}
}

// Waiting returns the gang as it waits.
func (c *Cluster) Waiting(id string) (Ask, bool) {
	w := c.waiting[id]
	if w == nil {
		return Ask{}, false
	}
	ask := w.Ask
	ask.Since = w.since
	return ask, true
}

func (c *Cluster) unwait(w *waiter) {
	delete(c.waiting, w.ID)
	if c.running[w.ID] == nil {
		c.Room.Shield(w.ID, nil)
	}
	c.deactivate(w)
	w.line.waits--
	w.until = 0 // whatever of it is asleep counts for nothing
	c.needs.release(w.needs)
}

func (c *Cluster) activate(w *waiter) {
	if w.line.shortest() {
		w.rank = c.rankWaiting(w, c.clock)
	}
	at, _ := slices.BinarySearchFunc(w.line.asks, w, byAsk)
	w.line.asks = slices.Insert(w.line.asks, at, w)
	w.active, w.fresh = true, true
	c.fresh++
}

func (c *Cluster) deactivate(w *waiter) {
	if !w.active {
		return
	}
	if at, found := slices.BinarySearchFunc(w.line.asks, w, byAsk); found {
		w.line.asks = slices.Delete(w.line.asks, at, at+1)
		if at < w.line.at {
			w.line.at--
		}
	}
	w.active = false
	c.tried(w)
	if w.leads {
		c.gained = true
		c.reopen(func(s *shut) bool { return s.by == w })
	}
	w.closes, w.leads = false, false
}

func (c *Cluster) tried(w *waiter) {
	if w.fresh {
		w.fresh = false
		c.fresh--
	}
}

// wake activates those who have slept long enough.
func (c *Cluster) wake(now int64) {
	for at, any := c.sleeps(); any && at <= now; at, any = c.sleeps() {
		w := heap.Pop(&c.asleep).(sleeper).waiter
		w.until = 0
		c.activate(w)
	}
}

// sleeps is when the first sleeper wakes.
func (c *Cluster) sleeps() (at int64, any bool) {
	for len(c.asleep) > 0 {
		first := c.asleep[0]
		if first.waiter.until == first.at {
			return first.at, true
		}
		heap.Pop(&c.asleep)
	}
	return 0, false
}

type sleeper struct {
	at     int64
	waiter *waiter
}

// sleepers is a heap, the earliest first.
type sleepers []sleeper

func (s sleepers) Len() int           { return len(s) }
func (s sleepers) Less(i, j int) bool { return s[i].at < s[j].at }
func (s sleepers) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *sleepers) Push(x any)        { *s = append(*s, x.(sleeper)) }
func (s *sleepers) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
