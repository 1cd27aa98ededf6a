package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/share"
)

// payback is the time within which a resize must have paid for itself: as long as it lasts at the least, if
// others follow as fast as they may.
const payback = cluster.ResizeWindow / cluster.MaxResizes

// grow lets elastic gangs have what is idle, when nobody waits who could use it. A gang grows by starting again
// from its checkpoint, so it does only if that pays.
func (r *round) grow() {
	if len(r.stuck) > 0 || len(r.Cluster.holds) > 0 {
		return
	}
	for _, l := range r.sorted {
		if l.denied || r.keepsLimit(l) {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(l.running)) {
			run := l.running[id]
			if run.step == run.needs.steps || run.Fixed || !run.Resumes || run.Stops || !resizable(run.Resized, r.now) {
				continue
			}
			if left := run.left(r.now); left > 0 {
				r.recall(r.now + int64(left))
				continue
			}
			r.growOne(run)
		}
	}
}

func (r *round) growOne(run *runner) {
	claim := share.Claim{Queue: run.Queue, Owner: run.Owner, Job: run.Job, Firm: run.Firm}
	if run.claim == nil || r.Queues.Release(*run.claim) != nil {
		return
	}
	mark := r.Room.Mark()
	r.Room.Vacate(run.ID, run.Allocations)
	step, allocations := r.largest(run.needs, r.guestOf(run), run.needs.steps, func(step int) bool {
		claim.Amount = run.needs.at(step).Amount
		_, ok := r.Queues.Admit(claim)
		return ok // of what is smaller too; whether it is worth it is asked of the largest
	})
	r.Room.Rollback(mark)
	run.claim = r.charge(*run.claim)
	if allocations == nil {
		return
	}
	if step <= run.step || !r.pays(run, step) {
		return
	}
	size := run.needs.at(step)
	run.Stops, run.For = true, run.ID
	r.plan.Evictions = append(r.plan.Evictions, cluster.Eviction{
		Gang: run.ID, Attempt: run.Attempt, Revision: run.Revision, For: run.ID, Counts: size.Counts,
		Reason: fmt.Sprintf("grows from %d to %d tasks", run.needs.at(run.step).Shape.Size, size.Shape.Size),
	})
	r.keep(run.ID, claim, step, allocations, []string{run.ID})
}

// pays reports whether what a gang wins by being larger, within the time that it is so at the least, is more than
// what it loses by starting again.
func (r *round) pays(run *runner, step int) bool {
	lost := time.Duration(r.now-run.safe()) + cmp.Or(run.Restart, r.opts.Restart)
	before, after := int64(run.needs.at(run.step).Shape.Size), int64(run.needs.at(step).Shape.Size)
	lasts := payback
	if run.Until > r.now {
		lasts = min(lasts, time.Duration(run.Until-r.now))
	}
	return int64(lasts)/after*(after-before) > int64(lost)
}
