package scheduler

import (
	"fmt"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/evict"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/share"
)

// press has others make room for an ask, if the rules allow it and it helps. It reports whether they were told to.
func (r *round) press(w *waiter) bool {
	l := w.line
	if l.pressed >= pressDepth || r.vain(w.press) {
		return false
	}
	l.pressed++
	candidates, again := r.candidates(w)
	w.press = look{r.moves, again}
	if again != never {
		r.recall(again)
	}
	if len(candidates) == 0 {
		return false
	}
	p := &pressing{round: r, w: w}
	mark := r.Room.Mark()
	r.Room.Unpin(w.ID)
	victims := evict.Choose(r.Room, candidates, p.fits, p)
	p.Begin()
	if victims == nil {
		r.Room.Rollback(mark)
		return false
	}
	r.evict(w, mark, victims)
	return true
}

// candidates are the gangs that the rules allow to be stopped for an ask, and when there may be more, however few
// move.
func (r *round) candidates(w *waiter) (found []evict.Candidate, again int64) {
	again = never
	if r.decays {
		again = r.now + int64(time.Minute)
	}
	gain := w.needs.Least().Amount
	for _, l := range r.sorted {
		for _, run := range l.running { // Choose has an order of its own
			if run.Fixed || run.Stops || len(run.Allocations) == 0 || !r.mayEvict(w, run, gain) {
				continue
			}
			if left := run.left(r.now); left > 0 {
				again = min(again, r.now+int64(left))
				continue
			}
			found = append(found, evict.Candidate{
				ID: run.ID, Cost: r.cost(run, r.now), Elastic: run.elastic(r.now), Started: run.Started, Allocations: run.Allocations,
			})
		}
	}
	return found, again
}

// mayEvict reports whether the rules allow that a gang is stopped for an ask: in its own queue those of
// lower priority, in others what the tree and the queue's rules allow.
func (r *round) mayEvict(w *waiter, run *runner, gain cluster.Amount) bool {
	rules := &w.line.queue.Preempt
	if run.line == w.line {
		return rules.Within == cluster.PreemptLower && run.Priority < w.Priority
	}
	rule := cluster.PreemptNever
	switch r.Queues.MayEvict(w.Queue, run.Queue, gain, run.amount) {
	case share.RightReclaim:
		rule = rules.Reclaim
	case share.RightFair:
		rule = rules.Fair
	}
	return rule == cluster.PreemptAny || rule == cluster.PreemptLower && run.Priority < w.Priority
}

// pressing is the search for victims for one ask. As a limit it allows as many of a queue as keep the
// rules when they all go.
type pressing struct {
	*round
	w    *waiter
	gone []*share.Claim
}

// Begin charges again what Allow has released.
func (p *pressing) Begin() {
	for _, claim := range p.gone {
		p.charge(*claim)
	}
	p.gone = p.gone[:0]
}

// Allow reports whether the candidate may go besides those that were allowed.
func (p *pressing) Allow(c *evict.Candidate) bool {
	run := p.running[c.ID]
	if run.line == p.w.line {
		return true
	}
	if !p.mayEvict(p.w, run, p.w.needs.Least().Amount) {
		return false
	}
	if run.claim != nil && p.Queues.Release(*run.claim) == nil {
		p.gone = append(p.gone, run.claim)
	}
	return true
}

// fits reports whether the ask has room, and the elastic ones among the victims with their least.
func (p *pressing) fits(victims []*evict.Candidate) bool {
	mark := p.Room.Mark()
	defer p.Room.Rollback(mark)
	if allocations, _ := p.Room.Take(p.w.needs.Least().Shape); allocations == nil {
		return false
	}
	for _, v := range victims {
		if !v.Elastic {
			continue
		}
		if allocations, _ := p.Room.Take(p.running[v.ID].needs.Least().Shape); allocations == nil {
			return false
		}
	}
	return true
}

// evict tells the victims to make room, and keeps the room for the ask and for those that go on with less.
func (r *round) evict(w *waiter, mark room.Mark, victims []*evict.Candidate) {
	awaits := make([]string, len(victims))
	for i, v := range victims {
		awaits[i] = v.ID
		r.Room.Give(v.Allocations)
	}
	allocations, _ := r.Room.Take(w.needs.Least().Shape)
	rest := make([]*Size, len(victims)) // what they go on with, and where
	rooms := make([][]cluster.Allocation, len(victims))
	for i, v := range victims {
		if run := r.running[v.ID]; v.Elastic {
			rest[i], rooms[i] = r.largest(run.needs, run.step-1, nil)
		}
	}
	r.Room.Rollback(mark)
	for i, v := range victims {
		run := r.running[v.ID]
		run.Stops, run.For = true, w.ID
		e := cluster.Eviction{Gang: run.ID, Attempt: run.Attempt, Revision: run.Revision, For: w.ID, Reason: preempted(w)}
		if rooms[i] != nil {
			e.Counts, e.Reason = rest[i].Counts, fmt.Sprintf("shrinks to %d tasks for %s", len(rooms[i]), w.ID)
			r.keep(run.ID, share.Claim{Queue: run.Queue, Owner: run.Owner, Job: run.Job}, rooms[i], awaits)
		}
		r.plan.Evictions = append(r.plan.Evictions, e)
	}
	r.keep(w.ID, w.claim(cluster.Amount{}), allocations, awaits)
}

// keep keeps room that others are told to make.
func (r *round) keep(id string, claim share.Claim, allocations []cluster.Allocation, awaits []string) {
	claim.Amount = r.amountOf(allocations)
	r.unhold(id)
	r.hold(&hold{id: id, until: never, made: true, seen: true, awaits: awaits, claim: r.charge(claim)}, allocations)
}

// largest takes room for the largest size up to a step that has some and that may is content with (nil is with all), or none.
func (r *round) largest(n *Needs, most int, may func(step int) bool) (*Size, []cluster.Allocation) {
	take := func(step int) []cluster.Allocation {
		if may != nil && !may(step) {
			return nil
		}
		allocations, _ := r.Room.Take(n.at(step).Shape)
		return allocations
	}
	if allocations := take(most); allocations != nil {
		return n.at(most), allocations
	}
	fits := -1 // it fits with fits, and does not with most
	for most-fits > 1 {
		mark, middle := r.Room.Mark(), (fits+most)/2
		if take(middle) != nil {
			fits = middle
		} else {
			most = middle
		}
		r.Room.Rollback(mark)
	}
	if fits < 0 {
		return nil, nil
	}
	return n.at(fits), take(fits)
}
