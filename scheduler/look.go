package scheduler

import (
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/share"
)

// Look is all that there is to say of some gangs that wait, as of one instant: a flat copy of the room, and of
// each gang what its queue says. Taking one costs the cluster the copying; what is made of it costs
// nobody who plans. Nobody changes a look, and several may read it at once.
type Look struct {
	Waiting int // how many may be placed, of the queues that were asked for

	now   int64
	room  *room.Map
	asks  []asked
	holds []held
}

// asked is one gang of a look.
type asked struct {
	Ask
	until  int64       // paused
	place  int         // in its queue's line, from 1; 0 if it is not in it
	of     int         // how long that is
	ahead  []string    // who is right before it, the first of the line first; at most mostAhead
	block  share.Block // the limit that keeps it from being placed
	denied bool
	barred []string    // models of which its queue may hold no more for it
	seeks  *Needs      // without these
	strict bool        // its queue lets nobody overtake
	behind string      // who has waited for longer for a limit that is above both
	rival  string      // a queue beside its own that goes first, since it has less
	share  share.Share // of its queue with it
	less   share.Share // of the rival
	own    *held       // what is kept for it
}

// held is room that is kept for a gang.
type held struct {
	id     string
	until  int64 // never if nobody knows
	made   bool
	awaits []string // who has yet to make the room
	nodes  []string
}

// mostAhead is how many of those that go first are named.
const mostAhead = 3

// LookAt takes a look at gangs that wait. Those that do not are left out. Where there is an earlier look that is recent
// enough, its copy of the room is used and none is made; it may be nil.
func (c *Cluster) LookAt(ids []string, now int64, earlier *Look) *Look {
	l := c.look(now, earlier)
	for _, id := range ids {
		if w := c.waiting[id]; w != nil {
			place := 0
			if w.active {
				at, _ := slices.BinarySearchFunc(w.line.asks, w, byAsk)
				place = at + 1
			}
			l.asks = append(l.asks, c.asked(w, place, l))
		}
	}
	return l
}

// LookOver takes a look at what may be placed, of a queue or of all if it is "": at most so many, in the order
// of queues and their lines. An earlier look is used as by LookAt.
func (c *Cluster) LookOver(queue string, most int, now int64, earlier *Look) *Look {
	l := c.look(now, earlier)
	for _, line := range c.sorted {
		if queue != "" && queue != line.queue.Name {
			continue
		}
		l.Waiting += len(line.asks)
		for at, w := range line.asks[:min(len(line.asks), most-len(l.asks))] {
			l.asks = append(l.asks, c.asked(w, at+1, l))
		}
	}
	return l
}

func (c *Cluster) look(now int64, earlier *Look) *Look {
	l := &Look{now: now}
	if earlier != nil {
		l.room = earlier.room
	} else {
		l.room = c.Room.Clone()
	}
	for _, h := range c.held() {
		kept := held{id: h.id, until: h.until, made: h.made, nodes: h.nodes}
		for _, id := range h.awaits {
			if run := c.running[id]; run != nil && run.Stops {
				kept.awaits = append(kept.awaits, id)
			}
		}
		l.holds = append(l.holds, kept)
	}
	return l
}

// asked says what the queue says of a gang at a place of its line.
func (c *Cluster) asked(w *waiter, place int, l *Look) asked {
	line := w.line
	a := asked{Ask: w.Ask, seeks: w.needs, until: w.until, place: place, of: len(line.asks)}
	for i := 0; i < place-1 && i < mostAhead; i++ {
		a.ahead = append(a.ahead, line.asks[i].ID)
	}
	if i := slices.IndexFunc(l.holds, func(h held) bool { return h.id == w.ID }); i >= 0 {
		a.own = &l.holds[i]
	}
	amount := w.needs.Least().Amount
	if a.own == nil || !a.own.made {
		block, ok := c.Queues.Admit(w.claim(amount))
		a.block, a.denied = block, !ok
		if barred := c.Queues.Barred(w.claim(amount)); ok && amount.MilliGPU > 0 && len(barred) > 0 {
			a.barred, a.seeks = barred, w.needs.sparing(barred)
		}
	}
	if first, _ := c.waitsBehind(w, amount, l.now); first != nil {
		a.behind = first.ID
	}
	a.strict = line.queue.Backfill == cluster.BackfillNone
	a.share = c.Queues.ShareAfter(line.queue.Name, amount, 1)
	a.less = a.share
	for _, other := range c.sorted {
		if other == line || len(other.asks) == 0 || other.queue.Parent != line.queue.Parent {
			continue
		}
		if theirs := c.Queues.ShareAfter(other.queue.Name, other.asks[0].needs.Least().Amount, 1); theirs.Less(a.less) {
			a.rival, a.less = other.queue.Name, theirs
		}
	}
	return a
}
