package scheduler

import (
	"cmp"
	"maps"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/share"
)

// hold is room that is kept for a gang that waits: pinned in the room, so that nobody else is given it.
type hold struct {
	id string
	// until is when all of it is expected to be free, never if nobody knows. Who is done before may use it.
	until int64
	at    int64 // when that was worked out
	due   int64 // when it is worked out anew
	// endless says that the gang may wait for ever: then it is kept in spells.
	endless bool
	// made says that others were told to make room for the gang: then it keeps the hold until it is placed or
	// gives up, and what it will hold is charged already, so that nobody takes its share meanwhile.
	made   bool
	step   int // with made: the size that it has room for, and the right to
	claim  *share.Claim
	awaits []string // those who were told to make room
	seen   bool     // of the round: it is still called for
	nodes  []string
}

// hold keeps room for a gang.
func (c *Cluster) hold(h *hold, allocations []cluster.Allocation) {
	c.unhold(h.id)
	h.nodes = nodesOf(allocations)
	c.Room.Pin(h.id, allocations)
	c.holds[h.id], c.listed = h, nil
	if w := c.waiting[h.id]; w != nil {
		w.kept = true
	}
}

// nodesOf are the nodes of allocations, sorted.
func nodesOf(allocations []cluster.Allocation) []string {
	nodes := map[string]bool{}
	for i := range allocations {
		nodes[allocations[i].Node] = true
	}
	return slices.Sorted(maps.Keys(nodes))
}

// unhold keeps nothing for a gang any more.
func (c *Cluster) unhold(id string) {
	h := c.holds[id]
	if h == nil {
		return
	}
	c.forget(id)
	c.release(h.claim)
	c.Room.Unpin(id)
	c.gain()
}

// unholdOn gives up what is kept on a node that is not to be had any more.
func (c *Cluster) unholdOn(node string) {
	for _, h := range c.held() {
		if _, on := slices.BinarySearch(h.nodes, node); on {
			c.unhold(h.id)
		}
	}
}

// forget takes a hold off the list.
func (c *Cluster) forget(id string) {
	delete(c.holds, id)
	c.listed = nil
	if w := c.waiting[id]; w != nil {
		w.kept = false
	}
}

// held are all holds, by their gangs' IDs. Nobody may change the list.
func (c *Cluster) held() []*hold {
	if c.listed == nil && len(c.holds) > 0 {
		c.listed = slices.SortedFunc(maps.Values(c.holds), func(a, b *hold) int { return cmp.Compare(a.id, b.id) })
	}
	return c.listed
}
