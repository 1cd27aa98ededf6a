package scheduler

import (
	"cmp"
	"slices"
	"time"
)

// firstSpell is how long things are kept at first for an ask that may wait for ever. The next time that it leads they are kept for twice as long:
// so what waits for jobs that end, however long they take, gets on in a few times as long.
const firstSpell = time.Hour

// spells is the clock by which room and limits are kept for all those that may wait for ever: for a spell everything that they
// call for, then for as long nothing of it. It is one clock for all, or the limit would be kept while the room rests, and who needs both never had
// them. In each spell that ask leads which has waited longest. If it is not placed by the end of it, it goes behind all that wait by then: so
// what never gets on is not before others for ever.
type spells struct {
	lead  *waiter
	from  int64
	until int64
	rests bool
}

// advance has the clock go on to an instant.
func (c *Cluster) advance(now int64) {
	s := &c.spells
	if s.until == 0 || s.until > now {
		return
	}
	if !s.rests {
		if w := s.lead; c.waiting[w.ID] == w {
			w.lasts *= 2
			w.line.goesBehind(w, now)
		}
		*s = spells{from: s.until, until: 2*s.until - s.from, rests: true}
	}
	if s.until <= now {
		*s = spells{}
	}
}

// keeps is 0 if something is kept for an ask that may wait for ever, or else when to ask again.
func (r *round) keeps(w *waiter) (again int64) {
	s := &r.spells
	switch {
	case s.rests:
		again = s.until
	case s.lead == nil:
		s.from = r.now
		r.leads(w)
	case w.goesBefore(s.lead) && r.now-s.from < int64(reserveEvery): // by then all have called for it
		r.leads(w)
	}
	r.recall(s.until)
	return again
}

// leads has a spell last as an ask needs it.
func (r *round) leads(w *waiter) {
	w.lasts = max(w.lasts, int64(firstSpell))
	r.spells.lead, r.spells.until = w, r.spells.from+w.lasts
}

// goesBehind has an ask go behind all that wait by now, and with it who comes behind it in its line, or they would have it go before others.
func (l *line) goesBehind(w *waiter, now int64) {
	w.turn, w.elder = now, now
	if at, found := slices.BinarySearchFunc(l.asks, w, byAsk); found {
		for _, behind := range l.asks[at+1:] {
			if behind.turn > 0 {
				behind.turn, behind.elder = now, now
			}
		}
	}
}

// inherit has each ask of a line go before others as early as any that comes behind it in the line may: or who is behind it would go before who goes
// before it, and what is kept would go round in circles.
func (l *line) inherit() {
	elder := int64(0)
	for _, w := range slices.Backward(l.asks) {
		if w.turn > 0 && (elder == 0 || w.turn < elder) {
			elder = w.turn
		}
		w.elder = elder
	}
}

// bySeniority is the order in which things are kept for asks: in a line its own, of several lines that first which has waited for longest.
func bySeniority(a, b *waiter) int {
	if a.line == b.line {
		return byAsk(a, b)
	}
	return cmp.Or(cmp.Compare(a.elder, b.elder), cmp.Compare(a.line.queue.Name, b.line.queue.Name))
}

// goesBefore reports whether an ask, or one behind it in its line, has waited for longer than another, or longer since it led a spell in vain.
func (w *waiter) goesBefore(other *waiter) bool {
	return (w.line == other.line || w.elder > 0) && bySeniority(w, other) < 0
}

// passed notes that an ask was passed over.
func (r *round) passed(w *waiter) {
	if w.since == 0 {
		w.since, w.turn = r.now, r.now
	}
	if w.elder == 0 {
		w.elder = w.turn
	}
}

// again is when it is worked out anew what is kept for an ask until this ends. Where nobody knows when that is, it is rarely, so that it stays where it is,
// though as soon as what does not seem to last for ever may.
func (r *round) again(w *waiter, e *end) int64 {
	switch at := r.now + max(int64(firstSpell), r.now-w.since); {
	case e.at != never:
		return e.at
	case e.endless(w):
		return at
	default:
		return min(at, e.run.Started+int64(lastsLong))
	}
}

// endless reports whether an ask that waits for this to end may do so for ever: it was there before, or has been for long.
func (e *end) endless(w *waiter) bool {
	return e.at == never && (e.late >= long || e.run.Started < w.since)
}
