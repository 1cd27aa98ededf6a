package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
)

const (
	// conservativeDepth is how many of a line that backfills conservatively have room kept for them.
	conservativeDepth = 16
	// pressDepth is for how many of a line that found no room victims are sought.
	pressDepth = 4
	// maxHolds bounds for how many gangs room is kept at a time, over all queues.
	maxHolds = 64
	// maxPasses bounds how often a round goes through what waits though nothing comes of it. Room that is kept goes from
	// younger gangs to older ones, so it comes to rest by itself; a round that does not would stop all planning.
	maxPasses = 4 * maxHolds
)

// round is one run of Plan.
type round struct {
	*Cluster
	now  int64
	all  bool // every ask is tried, not only those that are new
	plan cluster.Plan

	stuck  map[*Needs]bool   // what found no room
	spares map[spared]*Needs // what leaves models out, for limits on them; nil if nothing does
	brief  map[*Needs]int64  // what found none although it would be done in so long
	nobody map[want]look     // for whom nobody may be stopped
	ends   []end
	done   int // placements and evictions of the passes before
}

// Plan decides what is placed where, who is told to make room and for whom room is kept, as of now. It counts
// as done: who is placed runs from now on, and the next Plan goes on from there. What was
// refused is told again, by SetNode, Wait and Run.
//
// The order is that of the tree of queues, after each placement anew: the queue with the least share
// places the first of its line, by priority and then by the queue's order, if its limits admit it and there is room for
// all of it. For the first that finds no room others are evicted, if the rules allow it, or room is kept for the time
// when enough of what runs has ended, and what comes later goes around it (EASY backfill: Lifka, JSSPP 1995;
// Mu'alem and Feitelson, TPDS 2001): on nodes, not on counts of GPUs.
func (c *Cluster) Plan(now int64) cluster.Plan {
	c.clock = now
	c.wake(now)
	c.advance(now)
	if !c.due(now) {
		return cluster.Plan{}
	}
	c.Room.Settle()
	c.learn()
	c.Queues.Advance(now)
	if c.resized {
		c.Queues.SetCapacity(c.total)
		c.resized, c.gained = false, true
	}
	r := &round{Cluster: c, now: now, brief: map[*Needs]int64{}, nobody: map[want]look{}}
	for idle := 0; r.pass(); { // what is held less sets free what others may take
		if idle++; r.moved() {
			idle = 0
		}
		if idle == maxPasses {
			r.gained = false
			r.recall(now + int64(time.Second))
			break
		}
	}
	c.Room.Settle()
	return r.plan
}

// moved reports whether the plan has changed since it was last asked.
func (r *round) moved() bool {
	done := r.done
	r.done = len(r.plan.Placements) + len(r.plan.Evictions)
	return r.done != done
}

// due reports whether a plan may differ from nothing.
func (c *Cluster) due(now int64) bool {
	return c.gained || c.fresh > 0 || c.resized || c.alarm > 0 && c.alarm <= now
}

// Pending reports whether there may be something to plan without a further change.
func (c *Cluster) Pending() bool { return c.gained || c.fresh > 0 }

// Next is when time alone may lead to another plan.
func (c *Cluster) Next() (at int64, any bool) {
	at, any = c.sleeps()
	if c.alarm > 0 && (!any || c.alarm < at) {
		return c.alarm, true
	}
	return at, any
}

// recall has Plan look again at an instant.
func (r *round) recall(at int64) {
	if at > r.now && at != never && (r.alarm == 0 || at < r.alarm) {
		r.alarm = at
	}
}

// pass goes once through what waits. It reports whether it set something free.
func (r *round) pass() bool {
	r.all = r.gained || r.alarm > 0 && r.alarm <= r.now
	r.gained = false
	r.stuck, r.spares = map[*Needs]bool{}, nil
	if r.all {
		r.alarm = 0
		for _, h := range r.holds {
			h.seen = h.made
		}
		for _, s := range r.shuts {
			s.seen = false
		}
		r.rank()
		r.placeHeld()
	}
	r.placeQueues()
	if !r.all {
		return r.gained
	}
	for _, h := range r.held() {
		if !h.seen {
			r.unhold(h.id)
		}
	}
	r.reopen(func(s *shut) bool { return !s.seen })
	if !r.gained {
		r.grow()
	}
	return r.gained
}

// placeHeld places those for whom others have made room, whosever turn it is.
func (r *round) placeHeld() {
	for _, h := range r.held() {
		w := r.waiting[h.id]
		if run := r.running[h.id]; run != nil && !run.Stops {
			r.unhold(h.id) // it was to be of another size, and goes on as it is
			continue
		}
		if !h.made || w == nil || !w.active {
			continue
		}
		if r.place(w) || r.awaited(h) {
			continue
		}
		r.unhold(h.id) // all have gone and it does not fit: it takes its turn again
		w.press, w.keep = look{}, look{}
		w.calm = r.now + int64(calmFor)<<min(w.vainly, 10) // whatever the reason is, it may be there the next time
		w.vainly++
	}
}

// awaited reports whether somebody has yet to make the room that is kept.
func (r *round) awaited(h *hold) bool {
	return slices.ContainsFunc(h.awaits, func(id string) bool {
		run := r.running[id]
		return run != nil && run.Stops
	})
}

// placeQueues lets the queues place what waits, one gang at a time.
func (r *round) placeQueues() {
	for _, l := range r.sorted {
		l.at, l.closed = 0, false
		if r.all {
			l.stuck, l.pressed, l.denied = 0, 0, false
			l.inherit()
		}
		r.demand(l)
	}
	for {
		name, any := r.Queues.Next()
		if !any {
			break
		}
		l := r.lines[name]
		w := l.asks[l.at]
		l.at++
		r.try(w)
		r.demand(l)
	}
	for _, l := range r.sorted { // who may not be tried has nothing to hope for until something is gained
		for _, w := range l.asks[l.at:] {
			r.tried(w)
		}
	}
}

// demand tells the tree what the line would place next. Where not all are tried, those that bind others have their turn all the
// same, and bind who is new and comes behind them.
func (r *round) demand(l *line) {
	for ; !l.closed && l.at < len(l.asks); l.at++ {
		if w := l.asks[l.at]; !r.all && w.closes || (r.all || w.fresh) && !r.hopeless(w) {
			r.Queues.SetDemand(l.queue.Name, w.needs.Least().Amount)
			return
		}
	}
	if l.closed && r.fresh > 0 { // they were: who is before them decides
		for _, w := range l.asks[l.at:] {
			r.tried(w)
		}
	}
	r.Queues.ClearDemand(l.queue.Name)
}

// hopeless reports whether trying the ask cannot lead to anything: its like has found no room, and enough
// of its line have that nothing is done for it.
func (r *round) hopeless(w *waiter) bool {
	if w.line.stuck < max(w.line.depth(), pressDepth) || w.kept {
		return false
	}
	needs := r.seeks(w)
	if !r.stuck[needs] || r.guest(&w.Ask) != nil {
		return false
	}
	if w.Lasts > 0 {
		if shortest, tried := r.brief[needs]; !tried || int64(w.Lasts) < shortest {
			return false
		}
	}
	r.tried(w)
	w.closes, w.leads = false, false
	return true
}

// try places an ask, or does what can be done for it.
func (r *round) try(w *waiter) {
	r.tried(w)
	if !r.all && w.closes {
		w.line.closed = true
		return
	}
	w.closes, w.leads = false, false
	h := r.holds[w.ID]
	if h != nil && h.made { // its victims have yet to go
		r.close(w)
		return
	}
	amount := w.needs.Least().Amount
	if first, firm := r.waitsBehind(w, amount, r.now); first != nil {
		if !firm {
			r.close(w)
		}
		r.passed(w)
		return
	}
	if block, ok := r.Queues.Admit(w.claim(amount)); !ok {
		sought := w.line.pressed
		if block.Asked > block.Most || !r.press(w) {
			r.denied(w, block)
		} else {
			r.close(w)
		}
		w.leads = w.leads || w.line.pressed > sought
		return
	}
	alone := r.guest(&w.Ask) != nil // away from where others run: what is found of it says nothing of its like
	if (h != nil || alone || !r.stuck[r.seeks(w)]) && r.place(w) || r.backfill(w) {
		return
	}
	if !alone {
		r.stuck[r.seeks(w)] = true
	}
	l := w.line
	l.stuck++
	r.close(w)
	r.passed(w)
	w.leads = l.stuck <= max(l.depth(), pressDepth)
	if !r.press(w) && l.stuck <= l.depth() && l.keepsFor(w) {
		r.reserve(w)
	}
}

// place gives an ask room, as much of it as it may have.
func (r *round) place(w *waiter) bool {
	mark := r.Room.Mark()
	r.Room.Unpin(w.ID)
	size, allocations := r.take(w)
	if allocations == nil {
		r.Room.Rollback(mark)
		return false
	}
	r.placed(w, allocations, size)
	return true
}

// placed notes that an ask has its room, which was taken.
func (r *round) placed(w *waiter, allocations []cluster.Allocation, size *Size) {
	if h := r.holds[w.ID]; h != nil {
		r.forget(w.ID)
		r.release(h.claim)
		r.gained = true // of what was kept for it, it may have left some
		r.excuse(w.ID)
	}
	r.plan.Placements = append(r.plan.Placements, cluster.Placement{
		Gang: w.ID, Attempt: w.Attempt, Revision: w.Revision, Allocations: allocations, Counts: size.Counts,
	})
	run := Running{
		ID: w.ID, Job: w.Job, Queue: w.Queue, Owner: w.Owner, Attempt: w.Attempt, Revision: w.Revision, Priority: w.Priority,
		Started: r.now, Labels: w.Labels, Allocations: allocations, Counts: size.Counts, Fixed: w.Fixed, Firm: w.Firm, Resumes: w.Resumes, Resized: w.Resized, needs: w.needs,
		Submitted: w.Submitted, Class: w.Class, Ran: w.Ran, Limit: w.Limit,
	}
	if w.Lasts > 0 {
		run.Until = r.now + int64(w.Lasts)
	}
	r.run(run)
	w.leads = false // who comes behind it has its turn anyhow
	r.unwait(w)
	r.ends = nil
}

// excuse takes back what the plan has others do to make room for a gang that has found some.
func (r *round) excuse(id string) {
	r.plan.Evictions = slices.DeleteFunc(r.plan.Evictions, func(e cluster.Eviction) bool {
		if e.For != id || e.Gang == id {
			return false
		}
		run := r.running[e.Gang]
		run.Stops, run.For = false, ""
		r.unhold(e.Gang)
		return true
	})
}

// take takes room for the largest size that has some and that the queue's limits admit; of those for whom others made room,
// no larger than they did. Which limits there are for GPUs of one model is known when it is known of which they are.
func (r *round) take(w *waiter) (*Size, []cluster.Allocation) {
	most := w.needs.steps
	if h := r.holds[w.ID]; h != nil && h.made {
		most = min(most, h.step)
		if h.claim != nil && r.Queues.Release(*h.claim) == nil {
			defer func() { h.claim = r.charge(*h.claim) }()
		}
	}
	mark := r.Room.Mark()
	may := func(step int) bool { return r.admits(w, w.needs.at(step).Amount) }
	guest := r.guest(&w.Ask)
	step, allocations := r.largest(r.seeks(w), guest, most, may)
	if allocations != nil && !r.admits(w, r.amountOf(allocations)) {
		r.Room.Rollback(mark)
		if step, allocations = r.largest(r.spare(w, step), guest, step, may); allocations != nil && !r.admits(w, r.amountOf(allocations)) {
			r.Room.Rollback(mark)
			return nil, nil
		}
	}
	return w.needs.at(step), allocations
}

// spared is who must leave models out: those who need the same and have the same limits.
type spared struct {
	needs        *Needs
	queue, owner string
}

// seeks is what an ask seeks room for: its needs, without the models that a limit was found to keep from it in this pass.
func (r *round) seeks(w *waiter) *Needs {
	if r.spares != nil {
		if needs := r.spares[spared{w.needs, w.Queue, w.Owner}]; needs != nil {
			return needs
		}
	}
	return w.needs
}

// spare has an ask and its like leave out the models of which they may hold no more.
func (r *round) spare(w *waiter, step int) *Needs {
	if r.spares == nil {
		r.spares = map[spared]*Needs{}
	}
	needs := w.needs.sparing(r.Queues.Barred(w.claim(w.needs.at(step).Amount)))
	r.spares[spared{w.needs, w.Queue, w.Owner}] = needs
	return needs
}

func (r *round) admits(w *waiter, amount cluster.Amount) bool {
	_, ok := r.Queues.Admit(w.claim(amount))
	return ok
}

// preempted is the reason that is told to a gang that makes room.
func preempted(w *waiter) string {
	return fmt.Sprintf("preempted by %s (queue %s, priority %d)", w.ID, w.Queue, w.Priority)
}
