package scheduler

import (
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// Schedule places as many of the asks as it can, in the order of Before. A gang is
// placed whole or not at all; one that does not fit is passed over, and a later one
// that fits may take the room (there is no reservation yet). Tasks go to the node that
// is left tightest: the one with the smallest dominant share (Ghodsi et al., NSDI 2011)
// of what remains; of equals the one that comes first by ID. A role that is spread first
// takes the nodes that have fewest of the tasks that it is spread with.
//
// Plan.Whys stays empty: Explain says why one ask waits, when somebody wants to know.
// The view is only read; commit the plan and Set what then is used.
func Schedule(view *View, asks []Ask, now int64) cluster.Plan {
	ready := make([]Ask, 0, len(asks))
	for _, ask := range asks {
		if !ask.Waits(now) {
			ready = append(ready, ask)
		}
	}
	if !slices.IsSortedFunc(ready, Before) {
		slices.SortFunc(ready, Before)
	}
	var plan cluster.Plan
	m := view.Clone()
	failed := map[*room.Shape]bool{} // room only shrinks: what did not fit will not fit later
	byKey := map[string]bool{}       // for shapes that are equal and not shared
	for _, ask := range ready {
		if failed[ask.Shape] {
			continue
		}
		if byKey[ask.Shape.Key] {
			failed[ask.Shape] = true
			continue
		}
		allocations, _ := m.Take(ask.Shape)
		if allocations == nil {
			failed[ask.Shape], byKey[ask.Shape.Key] = true, true
			continue
		}
		m.Settle()
		plan.Placements = append(plan.Placements, cluster.Placement{
			Gang: ask.ID, Attempt: ask.Attempt, Revision: ask.Revision, Allocations: allocations,
		})
	}
	return plan
}
