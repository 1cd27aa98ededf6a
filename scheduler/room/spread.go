package room

// group is tasks that are spread together: how many of them each node has.
type group struct {
	byNode  map[string]int32
	byPlace []int32 // the same, worked out when it is needed; nil if it is not known
}

// Count notes that so many tasks more, or fewer, which are spread together are on a node. Take counts those that it
// places, and Rollback takes that back: once they are settled, Count must not add them again.
func (m *Map) Count(job, spread, node string, tasks int) {
	name := spreadOf(job, spread)
	if name == "" {
		return
	}
	g := m.groups[name]
	if g == nil {
		g = &group{byNode: map[string]int32{}}
		m.groups[name] = g
	}
	g.byPlace = nil
	if g.byNode[node] += int32(tasks); g.byNode[node] == 0 {
		delete(g.byNode, node)
	}
	if len(g.byNode) == 0 {
		delete(m.groups, name)
	}
}

// groupOf is the group of a role, nil if it is spread with none.
func (m *Map) groupOf(name string) *group {
	if name == "" {
		return nil
	}
	g := m.groups[name]
	if g == nil {
		g = &group{byNode: map[string]int32{}}
		m.groups[name] = g
	}
	if len(g.byPlace) != len(m.nodes) {
		g.byPlace = make([]int32, len(m.nodes))
		for id, tasks := range g.byNode { // in any order: each has a place of its own
			if place, known := m.fixed.index[id]; known {
				g.byPlace[place] = tasks
			}
		}
	}
	return g
}

func (g *group) add(m *Map, place, tasks int32) {
	g.byPlace[place] += tasks
	id := m.fixed.ids[place]
	if g.byNode[id] += tasks; g.byNode[id] == 0 {
		delete(g.byNode, id)
	}
}

// bestSpread is the best of the nodes with the fewest tasks of a group, or -1.
func (m *Map) bestSpread(c *class, g *group) int32 {
	if c.denied != 0 && c.denied == m.level {
		return -1
	}
	m.sync(c)
	best := int32(-1)
	for place, score := range c.scores.leaves[:len(m.nodes)] {
		if score == NoFit {
			continue
		}
		if best < 0 || g.byPlace[place] < g.byPlace[best] || g.byPlace[place] == g.byPlace[best] && score > c.scores.leaves[best] {
			best = int32(place)
		}
	}
	if best < 0 {
		m.deny(c)
	}
	return best
}
