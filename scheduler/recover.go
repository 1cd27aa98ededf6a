package scheduler

import (
	"maps"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// Rest notes that a gang holds nothing and will wait again: its attempt has ended. What is kept for it stays
// kept.
func (c *Cluster) Rest(id string) {
	if run := c.running[id]; run != nil {
		c.unrun(run)
	}
}

// Recover keeps room again for those whom others were told to make room for, as whoever told them knew and this
// Cluster does not: after all nodes and gangs were told to it. Where they go now may be elsewhere than was planned
// then; nobody else is evicted for them while these end.
func (c *Cluster) Recover() {
	byGang := map[string][]string{}
	for _, id := range slices.Sorted(maps.Keys(c.running)) {
		if run := c.running[id]; run.Stops && run.For != "" && run.For != id {
			byGang[run.For] = append(byGang[run.For], id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byGang)) {
		w := c.waiting[id]
		if w == nil || c.holds[id] != nil {
			continue
		}
		mark := c.Room.Mark()
		for _, victim := range byGang[id] {
			c.Room.Vacate(victim, c.running[victim].Allocations)
		}
		allocations, _ := c.Room.Take(w.needs.Least().For(c.guest(&w.Ask)))
		c.Room.Rollback(mark)
		if allocations == nil {
			continue // something else has gone meanwhile: it takes its turn
		}
		h := &hold{id: id, until: never, made: true, seen: true, awaits: byGang[id]}
		claim := w.claim(c.amountOf(allocations))
		c.hold(h, allocations)
		h.claim = c.charge(claim)
	}
	c.Room.Settle()
}

// Kept is the room that is kept for a gang, and the gangs that have yet to make it; nil if others make none.
func (c *Cluster) Kept(id string) (allocations []cluster.Allocation, awaits []string) {
	h := c.holds[id]
	if h == nil || !h.made {
		return nil, nil
	}
	for _, victim := range h.awaits {
		if run := c.running[victim]; run != nil && run.Stops {
			awaits = append(awaits, victim)
		}
	}
	return c.Room.Pinned(id), awaits
}
