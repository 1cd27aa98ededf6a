package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/evict"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/share"
)

// calmFor is for how long nobody is stopped for an ask for which others had gone in vain; twice as long each time.
const calmFor = time.Minute

// want is what asks have in common for whom nobody may be stopped if nobody may be for the first of them.
type want struct {
	line     *line
	needs    *Needs
	priority int32
}

// press has others make room for an ask, if the rules allow it and it helps. It reports whether they were told to.
func (r *round) press(w *waiter) bool {
	l := w.line
	if l.pressed >= pressDepth || r.vain(w.press) {
		return false
	}
	if w.calm > r.now {
		r.recall(w.calm)
		return false
	}
	alike := want{l, w.needs, w.Priority}
	if none := r.nobody[alike]; r.vain(none) { // of those that are alike the first has most right
		w.press = none
		return false
	}
	candidates, again := r.candidates(w)
	w.press = look{r.moves, r.now, again}
	if again != never {
		r.recall(again)
	}
	if len(candidates) == 0 {
		r.nobody[alike] = w.press
		return false
	}
	l.pressed++ // finding candidates is cheap, choosing among them is not
	p := &pressing{round: r, w: w}
	_, p.admitted = r.Queues.Admit(w.claim(w.needs.Least().Amount))
	p.guest = r.guest(&w.Ask)
	whole := func() {
		for i := range candidates {
			candidates[i].Elastic = false
		}
	}
	if w.needs.required || p.guest != nil { // with less they would go on somewhere, and it may have to be near or away from there
		whole()
	}
	mark := r.Room.Mark()
	r.Room.Unpin(w.ID)
	victims := evict.Choose(r.Room, candidates, p.fits, p)
	if victims == nil { // then those that could have gone on with less stop, too
		whole()
		victims = evict.Choose(r.Room, candidates, p.fits, p)
	}
	p.Begin()
	if victims == nil || !r.evict(p, victims, mark) {
		r.Room.Rollback(mark)
		return false
	}
	return true
}

// candidates are the gangs that the rules allow to be stopped for an ask, and when there may be more, however few
// move.
func (r *round) candidates(w *waiter) (found []evict.Candidate, again int64) {
	again = never
	if r.decays {
		again = r.now + int64(time.Minute)
	}
	if w.line.queue.Preempt.Within == cluster.PreemptLonger {
		again = r.now + lookAgain
	}
	gain := w.needs.Least().Amount
	others := r.takesFrom(w, gain)
	lines := r.sorted
	if others == nil {
		lines = []*line{w.line}
	}
	for _, l := range lines {
		if l != w.line && !others(l) {
			continue
		}
		for _, run := range l.running { // Choose has an order of its own
			if run.Fixed || run.Stops || len(run.Allocations) == 0 || !r.mayEvict(w, run, gain) {
				continue
			}
			if left := run.left(r.now); left > 0 {
				again = min(again, r.now+int64(left))
				continue
			}
			found = append(found, evict.Candidate{
				ID: run.ID, Cost: r.loss(w, run), Elastic: run.elastic(r.now), Started: run.Started, Allocations: run.Allocations,
			})
		}
	}
	return found, again
}

// takesFrom says of which other queues an ask could have anything at all stop: it saves looking at all that runs. What it lets
// pass, mayEvict judges. It is nil if there is none.
func (r *round) takesFrom(w *waiter, gain cluster.Amount) func(l *line) bool {
	rules := &w.line.queue.Preempt
	after := r.Queues.ShareAfter(w.Queue, gain, 1)
	reclaims := rules.Reclaim != cluster.PreemptNever && w.line.guaranteed && r.Queues.Guaranteed(w.Queue, gain)
	fair := rules.Fair != cluster.PreemptNever
	if !reclaims && !fair {
		return nil
	}
	return func(l *line) bool {
		if len(l.running) == 0 {
			return false
		}
		return reclaims || fair && (l.queue.Parent != w.line.queue.Parent || after.Beyond <= r.Queues.Share(l.queue.Name).Beyond)
	}
}

// mayEvict reports whether the rules allow that a gang is stopped for an ask: in its own queue those of
// lower priority, in others what the tree and the queue's rules allow.
func (r *round) mayEvict(w *waiter, run *runner, gain cluster.Amount) bool {
	rules := &w.line.queue.Preempt
	if run.line == w.line {
		return rules.Within != cluster.PreemptNever && run.Priority < w.Priority ||
			rules.Within == cluster.PreemptLonger && run.Priority == w.Priority && r.worthIt(w, run)
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
	w        *waiter
	guest    *room.Guest
	admitted bool // the limits of its queue allow it as it is
	gone     []*share.Claim
}

// Begin charges again what was released.
func (p *pressing) Begin() {
	for _, claim := range p.gone {
		p.charge(*claim)
	}
	p.gone = p.gone[:0]
}

func (p *pressing) free(run *runner) {
	if run.claim != nil && p.Queues.Release(*run.claim) == nil {
		p.gone = append(p.gone, run.claim)
	}
}

// Allow reports whether the candidate may go besides those that were allowed.
func (p *pressing) Allow(c *evict.Candidate) bool { return p.allow(c.ID, p.w.needs.Least().Amount) }

func (p *pressing) allow(id string, gain cluster.Amount) bool {
	run := p.running[id]
	if run.line == p.w.line {
		return true
	}
	if !p.mayEvict(p.w, run, gain) {
		return false
	}
	p.free(run)
	return true
}

// fits reports whether the ask has room and its queue's limits admit it, and the elastic ones among the victims have
// their least.
func (p *pressing) fits(victims []*evict.Candidate) bool {
	mark := p.Room.Mark()
	defer p.Room.Rollback(mark)
	least := p.w.needs.Least()
	if allocations, _ := p.Room.Take(least.For(p.guest)); allocations == nil {
		return false
	}
	for _, v := range victims {
		if !v.Elastic {
			continue
		}
		run := p.running[v.ID]
		if allocations, _ := p.Room.Take(run.needs.Least().For(p.guestOf(run))); allocations == nil {
			return false
		}
	}
	return p.admitted || p.admits(victims, least.Amount)
}

// admits reports whether the queue's limits admit the ask when the victims are gone.
func (p *pressing) admits(victims []*evict.Candidate, amount cluster.Amount) bool {
	p.Begin()
	defer p.Begin()
	for _, v := range victims {
		p.free(p.running[v.ID])
	}
	_, ok := p.Queues.Admit(p.w.claim(amount))
	return ok
}

// allows asks the rules once more when it is known of which models the GPUs are that the ask gains.
func (p *pressing) allows(victims []*evict.Candidate, gain cluster.Amount) bool {
	defer p.Begin()
	for _, v := range victims {
		if !p.allow(v.ID, gain) {
			return false
		}
	}
	return p.admits(victims, gain)
}

// evict tells the victims to make room, and keeps the room for the ask and for those that go on with less. It is
// false, and nobody is told, if the rules forbid it now that it is known which room that is.
func (r *round) evict(p *pressing, victims []*evict.Candidate, mark room.Mark) bool {
	w, awaits := p.w, make([]string, len(victims))
	for i, v := range victims {
		awaits[i] = v.ID
		r.Room.Vacate(v.ID, v.Allocations)
	}
	// As much of it as the rules allow in their room, though no more of the elastic victims' than they must give.
	most := w.needs.steps
	if slices.ContainsFunc(victims, func(v *evict.Candidate) bool { return v.Elastic }) {
		most = 0
	}
	step, allocations := r.largest(w.needs, p.guest, most, func(step int) bool { return p.allows(victims, w.needs.at(step).Amount) })
	if allocations == nil || !p.allows(victims, r.amountOf(allocations)) {
		return false
	}
	rest := make([]int, len(victims)) // what they go on with, and where
	rooms := make([][]cluster.Allocation, len(victims))
	for i, v := range victims {
		if run := r.running[v.ID]; v.Elastic {
			rest[i], rooms[i] = r.largest(run.needs, r.guestOf(run), run.step-1, nil)
		}
	}
	r.Room.Rollback(mark)
	for i, v := range victims {
		run := r.running[v.ID]
		run.Stops, run.For = true, w.ID
		e := cluster.Eviction{Gang: run.ID, Attempt: run.Attempt, Revision: run.Revision, For: w.ID, Reason: preempted(w)}
		if rooms[i] != nil {
			e.Counts, e.Reason = run.needs.at(rest[i]).Counts, fmt.Sprintf("shrinks to %d tasks for %s", len(rooms[i]), w.ID)
			r.keep(run.ID, share.Claim{Queue: run.Queue, Owner: run.Owner, Job: run.Job, Firm: run.Firm}, rest[i], rooms[i], awaits)
		}
		r.plan.Evictions = append(r.plan.Evictions, e)
	}
	r.keep(w.ID, w.claim(cluster.Amount{}), step, allocations, awaits)
	return true
}

// keep keeps room that others are told to make, for so large a gang.
func (r *round) keep(id string, claim share.Claim, step int, allocations []cluster.Allocation, awaits []string) {
	claim.Amount = r.amountOf(allocations)
	r.unhold(id)
	r.hold(&hold{id: id, until: never, made: true, step: step, seen: true, awaits: awaits, claim: r.charge(claim)}, allocations)
}

// largest takes room for the largest size up to a step that has some and that may is content with (nil is with all), or none.
func (r *round) largest(n *Needs, g *room.Guest, most int, may func(step int) bool) (int, []cluster.Allocation) {
	take := func(step int) []cluster.Allocation {
		if may != nil && !may(step) {
			return nil
		}
		allocations, _ := r.Room.Take(n.at(step).For(g))
		return allocations
	}
	if allocations := take(most); allocations != nil {
		return most, allocations
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
		return 0, nil
	}
	return fits, take(fits)
}
