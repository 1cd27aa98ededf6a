package scheduler

import (
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/share"
)

// shut is a limit of a queue that the first of a line has waited for, so that nobody else takes what it waits for: as a hold keeps room
// on nodes, it keeps what the limit leaves. Who will be done before the other can use it may.
type shut struct {
	by    *waiter
	until int64 // when enough of what holds of the limit has ended, never if nobody knows
	seen  bool  // of the round: it is still called for
}

// frees is when an ask that a limit denies will be admitted.
type frees struct {
	look
	until   int64 // never if nobody knows, 0 if it would not be, or had no room, if all ended that runs
	due     int64 // when that is worked out anew
	endless bool  // it may be for ever until then, or until it then has room
}

// denied notes that a limit blocks an ask. When the first of a line has waited for long enough for a limit that is not
// its owner's alone, others no longer take what it waits for: neither those behind it nor other queues that have the limit above
// them. In a strict queue those behind it wait at once. A limit on what nobody may preempt keeps only such jobs back, and closes no line.
func (r *round) denied(w *waiter, block share.Block) {
	r.passed(w)
	if block.Owner != "" || block.Asked > block.Most || w.line.stuck > 0 {
		return
	}
	limit := block.Queue
	if block.Limit == share.LimitFirm {
		limit = firmIn + block.Queue
	} else {
		w.line.denied = true
		r.close(w)
	}
	if patient := w.since + int64(r.opts.Patience); patient > r.now {
		r.recall(patient)
		return
	}
	r.free(w, block.Queue)
	if w.frees.until == 0 || w.frees.endless && r.keeps(w) > 0 {
		return
	}
	if old := r.shuts[limit]; old == nil || old.by == w || w.goesBefore(old.by) {
		r.shuts[limit] = &shut{by: w, until: w.frees.until}
		r.recall(w.frees.due)
		r.stays(w)
	}
}

// firmIn stands before a queue's name for its limit on what nobody may preempt.
const firmIn = "firm in "

// close has nobody overtake an ask in a queue that says so.
func (r *round) close(w *waiter) {
	if w.line.queue.Backfill == cluster.BackfillNone {
		w.line.closed, w.closes, w.leads = true, true, true
	}
}

// free works out when an ask that a queue's limit denies will be admitted by all limits, if what runs ends in its order.
func (r *round) free(w *waiter, queue string) {
	f := &w.frees
	fresh := f.until > r.now && f.due > r.now // what did not seem endless may by now
	if next := f.at + int64(reserveEvery); f.at > 0 && (fresh && f.moves == r.moves || f.until > r.now && next > r.now) {
		r.recall(next)
		return
	}
	*f = frees{look: look{moves: r.moves, at: r.now}}
	if r.ends == nil {
		r.ends = r.Cluster.ends(r.now)
	}
	if e := r.lastOf(w, queue); e != nil {
		f.until, f.due, f.endless = e.at, r.again(w, e), e.endless(w)
	}
	if f.until == 0 || f.endless {
		return
	}
	if latest, _ := r.earliest(w); latest == nil {
		f.until = 0
	} else {
		f.due, f.endless = min(f.due, r.again(w, latest)), latest.endless(w)
	}
}

// lastOf is the last that has to end before an ask that a queue's limit denies is admitted, by that limit and those above it, which may deny it all
// the same; nil if it never would be.
func (r *round) lastOf(w *waiter, queue string) (last *end) {
	claim := w.claim(w.needs.Least().Amount)
	gone := make([]*share.Claim, len(r.ends))
	defer func() {
		for _, claim := range gone {
			if claim != nil {
				r.charge(*claim)
			}
		}
	}()
	latest := 0
	for i := 0; i < len(gone); i++ {
		run := r.ends[i].run
		if gone[i] != nil || run.claim == nil || !r.Queues.Under(run.Queue, queue) || r.Queues.Release(*run.claim) != nil {
			continue
		}
		gone[i] = run.claim
		block, ok := r.Queues.Admit(claim)
		if !ok && block.Queue == queue {
			continue
		}
		latest = max(latest, i)
		if ok {
			return &r.ends[latest]
		}
		queue, i = block.Queue, -1 // of whose limit others hold, too, who may have been passed by
	}
	return nil
}

// waitsBehind is who waits for a limit that an ask would take of, nil if nobody does; firm if it is one on what nobody may preempt alone. Where it is
// what others withhold, who takes none of it goes on, and so does who will be done in time.
func (c *Cluster) waitsBehind(w *waiter, amount cluster.Amount, now int64) (first *waiter, firm bool) {
	if len(c.shuts) == 0 {
		return nil, false
	}
	if s := c.shuts[""]; s.bars(w, now) && c.Queues.ShareAfter(w.line.queue.Name, amount, 1).Beyond > 0 {
		return s.by, false
	}
	for name := w.line.queue.Name; name != ""; {
		if s := c.shuts[name]; s.bars(w, now) {
			return s.by, false
		}
		if s := c.shuts[firmIn+name]; w.Firm && s.bars(w, now) {
			first, firm = s.by, true
		}
		q, _ := c.Queues.Queue(name)
		name = q.Parent
	}
	return first, firm
}

// bars reports whether an ask may take nothing of the limit.
func (s *shut) bars(w *waiter, now int64) bool {
	if s == nil || s.by == w || w.goesBefore(s.by) {
		return false
	}
	return s.until == never || w.Lasts == 0 || w.Lasts > time.Duration(s.until-now)
}

// keepsLimit reports whether somebody waits for a limit that is above a line.
func (c *Cluster) keepsLimit(l *line) bool {
	for queue := range c.shuts { // in any order
		if c.Queues.Under(l.queue.Name, queue) {
			return true
		}
	}
	return false
}

// reopen gives up what is kept of limits by an ask, or by all that no longer call for it.
func (c *Cluster) reopen(drop func(s *shut) bool) {
	for queue, s := range c.shuts { // in any order
		if drop(s) {
			delete(c.shuts, queue)
			c.gain()
		}
	}
}
