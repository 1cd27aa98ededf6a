package room

import "github.com/clary-ml/clary/cluster"

// Stuck says where placing a gang ended.
type Stuck struct {
	Role   int // which does not fit
	Placed int // tasks of that role that did
	// Topology is the level within which there was no room for all; "" if there is none anywhere.
	Topology cluster.Level
}

// Take takes room for the whole gang, or takes nothing and says where the roles, the hardest first, got stuck. What it
// took can be undone; the allocations are in the order of the gang's roles and their tasks.
//
// Roles are tried the hardest first and, if that fails, the other way around: packing several sizes at best is
// hard (bin packing), and two orders find nearly all that is possible. For gangs of one role it is exact.
func (m *Map) Take(s *Shape) ([]cluster.Allocation, Stuck) {
	if s.Topology.Level != "" {
		return m.takeTogether(s)
	}
	from := m.Mark()
	allocations, stuck := m.try(s, s.order)
	if allocations != nil {
		return allocations, Stuck{}
	}
	m.Rollback(from)
	if len(s.order) > 1 && s.order[0] != s.reverse[0] {
		if allocations, _ = m.try(s, s.reverse); allocations != nil {
			return allocations, Stuck{}
		}
		m.Rollback(from)
	}
	return nil, stuck
}

// Fill takes room for as much of the gang as there is, the hardest role first, and says where it got stuck.
func (m *Map) Fill(s *Shape) Stuck {
	m.tidy()
	_, stuck := m.try(s, s.order)
	return stuck
}

// try takes room for the roles in the given order. If it gets stuck it returns nil, and what it took stays taken.
func (m *Map) try(s *Shape, order []int) ([]cluster.Allocation, Stuck) {
	var allocations []cluster.Allocation
	m.placed = m.placed[:0]
	for _, role := range order {
		n := &s.Roles[role]
		c, g := m.classOf(n), m.groupOf(n.Spread)
		l := m.lookFor(c, n, g)
		for done := range n.Count {
			var place int32
			switch {
			case l != nil:
				place = l.best()
			case g == nil:
				place = m.best(c)
			default:
				place = m.bestSpread(c, g)
			}
			if place < 0 {
				return nil, Stuck{Role: role, Placed: done}
			}
			if allocations == nil {
				allocations = make([]cluster.Allocation, s.Size)
			}
			m.put(place, c, n, g, &allocations[n.First+done])
		}
	}
	return allocations, Stuck{}
}

// put takes one task's room, and counts it among those with which it is spread.
func (m *Map) put(place int32, c *class, n *Need, g *group, a *cluster.Allocation) {
	m.take(place, c, n, a)
	m.placed = append(m.placed, place)
	if g != nil {
		g.add(m, place, 1)
		m.undo.steps = append(m.undo.steps, step{kind: taskCounted, place: place})
		m.undo.groups = append(m.undo.groups, g)
	}
}

// take gives one task its room on a node.
func (m *Map) take(place int32, c *class, need *Need, a *cluster.Allocation) {
	n, r := &m.nodes[place], &c.request
	m.undo.node(place, *n)
	n.Milli -= r.Milli
	n.Memory -= r.Memory
	a.Node = m.fixed.ids[place]
	a.Resources.MilliCPU, a.Resources.Memory = need.Ask.MilliCPU, need.Ask.Memory
	switch {
	case r.Profile != 0:
		a.Resources.Shares = m.takeSlots(place, r)
	case r.GPUs > 0:
		a.Resources.Devices = m.takeWhole(place, r)
	case r.shares():
		a.Resources.Shares = m.takeShare(place, r)
	}
	if r.Ports > 0 {
		m.undo.port(m.ports[place])
		a.Resources.Ports = m.ports[place].take(r.Ports)
		n.Ports -= r.Ports
	}
	m.touch(place)
}

// Give gives back the room of tasks, as if they had ended. It can be undone. What is not on a node that
// is there counts for nothing.
func (m *Map) Give(allocations []cluster.Allocation) {
	m.tidy()
	m.rise()
	for i := range allocations {
		m.shift(&allocations[i], 1)
	}
}

// rise says, in a way that can be undone, that nodes gain.
func (m *Map) rise() {
	m.undo.steps = append(m.undo.steps, step{kind: levelRose})
	m.undo.levels = append(m.undo.levels, m.level)
	m.gain()
}

// shift gives back what an allocation holds, or takes it if sign is -1: even what is not free.
func (m *Map) shift(a *cluster.Allocation, sign int32) {
	place, known := m.fixed.index[a.Node]
	if !known || m.nodes[place].phase == gone {
		return
	}
	n := &m.nodes[place]
	m.undo.node(place, *n)
	n.Milli += sign * clampMilli(a.Resources.MilliCPU)
	n.Memory += int64(sign) * a.Resources.Memory
	m.useNamed(place, &a.Resources, -sign)
	if len(a.Resources.Ports) > 0 {
		p := &m.ports[place]
		m.undo.port(*p)
		if sign > 0 {
			p.used = p.without(a.Resources.Ports)
		} else {
			p.used = p.with(a.Resources.Ports)
		}
		n.Ports = p.free()
	}
	m.touch(place)
}

// Advance remembers which ports a plan took, so that the next plan looks for free ones behind them: a port that was
// freed a moment ago is used again as late as possible.
func (m *Map) Advance(plan cluster.Plan) {
	for i := range plan.Placements {
		for _, a := range plan.Placements[i].Allocations {
			if place, known := m.fixed.index[a.Node]; known && len(a.Resources.Ports) > 0 {
				p := &m.ports[place]
				p.next = p.after(a.Resources.Ports[len(a.Resources.Ports)-1])
			}
		}
	}
}
