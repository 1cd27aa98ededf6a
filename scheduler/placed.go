package scheduler

import (
	"fmt"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// shortConstraints: a required constraint is not met.
func shortConstraints(o *room.Offer, _ *room.Need) (int64, bool) {
	return one(o.Unmet != "" && !o.Tainted), false
}

func (s *survey) saysConstraints(c *count) string {
	return s.of(c.nodes, "is|are") + fmt.Sprintf(" not as it demands: %s (%s)", c.nearest.Unmet, c.nearest.ID)
}

func shortTaints(o *room.Offer, _ *room.Need) (int64, bool) { return one(o.Tainted), false }

func (s *survey) saysTaints(c *count) string {
	return s.of(c.nodes, "has|have") + fmt.Sprintf(" a taint that it does not tolerate: %s (%s)", c.nearest.Unmet, c.nearest.ID)
}

func shortAffinity(o *room.Offer, _ *room.Need) (int64, bool) { return one(o.Barred), false }

func (s *survey) saysAffinity(c *count) string {
	return s.of(c.nodes, "is|are") + " ruled out by other jobs that it is to be near or away from, or that are to be away from it"
}

// shortShares is in thousandths of one GPU; one if its memory alone is short.
func shortShares(o *room.Offer, want *room.Need) (int64, bool) {
	if !want.Ask.Shares() || o.Parts.Fits {
		return 0, false
	}
	return max(1, int64(want.Ask.GPUMilli-o.Parts.Milli)), !o.Parts.Any
}

func (s *survey) saysShares(c *count) string {
	return s.partly(c, "no such GPU to share", fmt.Sprintf("has at most %g of a GPU and %s %s on one",
		float64(max(0, c.nearest.Parts.Milli))/cluster.WholeGPU, cluster.FormatBytes(c.nearest.Parts.Memory), s.word))
}

func shortSlots(o *room.Offer, want *room.Need) (int64, bool) {
	if want.Ask.MIG == "" {
		return 0, false
	}
	return int64(want.Ask.GPUs) - int64(o.Parts.Slots), !o.Parts.Any
}

func (s *survey) saysSlots(c *count) string {
	return s.partly(c, "no GPU that is cut into slots "+s.need.Ask.MIG, fmt.Sprintf("has %d slots %s of the %d it takes", c.nearest.Parts.Slots, s.word, s.need.Ask.GPUs))
}

// partly tells of nodes that have nothing of the kind, and of the nearest of those that have too little.
func (s *survey) partly(c *count, none, nearest string) string {
	if c.none == c.nodes {
		return s.of(c.none, "has|have") + " " + none
	}
	text := ""
	if c.none > 0 {
		text = s.of(c.none, "has|have") + " " + none + ", "
	}
	return text + fmt.Sprintf("the nearest (%s) %s", c.nearest.ID, nearest)
}

// apart says that there is room for a gang, and not as close together as it must be.
func apart(why cluster.Why, m *room.Map, shape *room.Shape) (cluster.Why, bool) {
	level := shape.Topology.Level
	if level == "" || shape.Topology.Preferred {
		return why, false
	}
	mark := m.Mark()
	_, at := m.Take(shape)
	m.Rollback(mark)
	if at.Topology == "" {
		return why, false
	}
	need := &shape.Roles[at.Role]
	tasks, node, known := m.Widest(shape, at.Role)
	switch {
	case known && tasks == 0: // it is not for where they stand
		return why, false
	case !known:
		return waits(why, "topology", fmt.Sprintf("its tasks must run in one %s, and no node says in which %s it stands (label clary.%s)", level, level, level)), true
	case tasks >= need.Count:
		return waits(why, "topology", fmt.Sprintf("its tasks must run in one %s, and none has room for all of them together", level)), true
	}
	why = waits(why, "topology", fmt.Sprintf("its tasks must run in one %s, and the one with most room (that of %s) takes %d of %d %ss", level, node, tasks, need.Count, need.Name))
	why.Blocks[0].Nodes, why.Blocks[0].Missing, why.Blocks[0].Nearest = int32(m.Len()), int64(need.Count-tasks), node
	return why, true
}
