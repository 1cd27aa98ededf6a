package room

import (
	"cmp"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// A gang with a topology goes into the lowest domain that takes all of it: a node, else a rack, else a zone, as Slurm's
// topology/tree takes the lowest switch. Of the domains of a level that do, it takes the tightest. Inside a domain it
// walks down as Kueue's topology-aware scheduling does: if one of the parts takes what is left, the tightest that
// does; else the part that takes most, and so on, so that few parts are used. How many tasks a node takes
// is counted exactly for one role after the other.

// above are the levels that nodes stand in, the lowest first; "" is all nodes.
var above = [...]cluster.Level{cluster.LevelNode, cluster.LevelRack, cluster.LevelZone, ""}

// takeTogether is Take for a shape with a topology.
func (m *Map) takeTogether(s *Shape) ([]cluster.Allocation, Stuck) {
	from := m.Mark()
	stuck := Stuck{Topology: s.Topology.Level}
	for _, level := range above {
		if level == "" && !s.Topology.Preferred {
			break
		}
		for _, d := range m.domains(s, level) {
			if !d.enough {
				continue
			}
			allocations, at := m.within(s, level, d)
			if allocations != nil {
				return allocations, Stuck{}
			}
			m.Rollback(from)
			stuck.Role, stuck.Placed = at.Role, at.Placed
		}
		if level == s.Topology.Level && !s.Topology.Preferred {
			break
		}
	}
	return nil, stuck
}

// domain is a part of the nodes.
type domain struct {
	places []int32
	tasks  int32 // of the hardest role, as many as there is room for
	enough bool  // for every role alone
}

// domains are those of a level, the tightest first. "" has one, of all nodes.
func (m *Map) domains(s *Shape, level cluster.Level) []*domain {
	var list []*domain
	byNumber := map[int32]*domain{}
	for place := range m.nodes {
		number := int32(1)
		if level != "" {
			number = m.domainOf(int32(place), level)
		}
		if number == 0 || m.nodes[place].phase == gone {
			continue
		}
		d := byNumber[number]
		if d == nil {
			d = &domain{enough: true}
			byNumber[number] = d
			list = append(list, d) // in the order of the nodes' IDs
		}
		d.places = append(d.places, int32(place))
	}
	m.placed = m.placed[:0]
	first := true
	for _, role := range s.order {
		need := &s.Roles[role]
		if !need.Bound {
			continue
		}
		f := m.fitsFor(need)
		for _, d := range list {
			tasks := int32(0)
			for _, place := range d.places {
				tasks += f.at(place, cluster.MaxTasks)
			}
			d.enough = d.enough && tasks >= int32(need.Count)
			if first {
				d.tasks = tasks
			}
		}
		first = false
	}
	slices.SortStableFunc(list, func(a, b *domain) int { return cmp.Compare(a.tasks, b.tasks) })
	return list
}

// fits is how many tasks of a role a node takes.
type fits struct {
	m *Map
	c *class
	l *look
}

func (m *Map) fitsFor(need *Need) fits {
	c := m.classOf(need)
	m.sync(c)
	return fits{m, c, m.lookFor(c, need, m.groupOf(need.Spread))}
}

// at is exact, and at most a number.
func (f fits) at(place, most int32) int32 {
	m, r := f.m, &f.c.request
	if f.c.scores.leaves[place] == NoFit || f.l != nil && f.l.ruledOut(place) {
		return 0
	}
	if f.l != nil {
		for i := range f.l.own {
			if f.l.own[i].a.Anti {
				most = min(most, 1)
			}
		}
	}
	return m.holds(place, r, most)
}

// holds is how many tasks of a request a node has room for, if it suits at all.
func (m *Map) holds(place int32, r *Request, most int32) int32 {
	n := &m.nodes[place]
	if r.Milli > 0 {
		most = min(most, n.Milli/r.Milli)
	}
	if r.Memory > 0 {
		most = int32(min(int64(most), n.Memory/r.Memory))
	}
	if r.Ports > 0 {
		most = min(most, n.Ports/r.Ports)
	}
	switch {
	case r.Profile != 0:
		most = min(most, m.countSlots(n, r)/r.GPUs)
	case r.GPUs > 0 && r.near != anywhere:
		most = min(most, m.countIslands(n, r, r.near))
	case r.GPUs > 0:
		most = min(most, countWhole(m.devicesOf(n), r)/r.GPUs)
	case r.shares():
		most = min(most, m.countShares(n, r))
	}
	return most
}

// within places a gang whose bound roles go into one domain.
func (m *Map) within(s *Shape, level cluster.Level, d *domain) ([]cluster.Allocation, Stuck) {
	allocations := make([]cluster.Allocation, s.Size)
	m.placed = m.placed[:0]
	for _, role := range s.order {
		need := &s.Roles[role]
		c, g := m.classOf(need), m.groupOf(need.Spread)
		var l *look
		var steps []int32
		if need.Bound {
			f := m.fitsFor(need)
			steps = m.walk(f, level, d.places, int32(need.Count))
			l = f.l
		} else {
			l = m.lookFor(c, need, g)
		}
		for done := range need.Count {
			place := int32(-1)
			switch {
			case need.Bound && done < len(steps):
				if place = steps[done]; m.score(place, c) == NoFit || l != nil && l.ruledOut(place) {
					place = -1
				}
			case need.Bound:
			case l != nil:
				place = l.best()
			case g == nil:
				place = m.best(c)
			default:
				place = m.bestSpread(c, g)
			}
			if place < 0 {
				return nil, Stuck{Role: role, Placed: done, Topology: s.Topology.Level}
			}
			m.put(place, c, need, g, &allocations[need.First+done])
		}
	}
	return allocations, Stuck{}
}

// part is a part of a domain that is being walked down.
type part struct {
	places []int32
	tasks  int32
}

// walk says on which places so many tasks go, one entry for each; fewer if there is not enough room.
func (m *Map) walk(f fits, level cluster.Level, places []int32, count int32) []int32 {
	if level == cluster.LevelNode {
		return slices.Repeat(places[:1], int(min(count, f.at(places[0], count))))
	}
	below := above[slices.Index(above[:], level)-1]
	parts := m.parts(f, below, places)
	var steps []int32
	for count > 0 && len(parts) > 0 {
		best := 0
		for i := range parts {
			if better(&parts[i], &parts[best], count) {
				best = i
			}
		}
		if parts[best].tasks == 0 {
			break
		}
		more := m.walk(f, below, parts[best].places, min(count, parts[best].tasks))
		steps = append(steps, more...)
		count -= int32(len(more))
		parts = slices.Delete(parts, best, best+1)
	}
	return steps
}

// parts divides places by their domains of a level. Nodes without a zone are one part, those without a rack one each.
func (m *Map) parts(f fits, level cluster.Level, places []int32) []part {
	var parts []part
	byNumber := map[int32]int{}
	for _, place := range places {
		tasks := f.at(place, cluster.MaxTasks)
		if tasks == 0 {
			continue
		}
		number := m.domainOf(place, level)
		at, known := byNumber[number]
		if !known || number == 0 && level != cluster.LevelZone {
			at = len(parts)
			parts = append(parts, part{})
			byNumber[number] = at
		}
		parts[at].places = append(parts[at].places, place)
		parts[at].tasks += tasks
	}
	return parts
}

// better reports whether a part is to be used before another for so many tasks: the tightest that takes them all, else the
// one that takes most. Of equals the first stays.
func better(a, b *part, count int32) bool {
	switch fitsA, fitsB := a.tasks >= count, b.tasks >= count; {
	case fitsA && fitsB:
		return a.tasks < b.tasks
	case fitsA != fitsB:
		return fitsA
	}
	return a.tasks > b.tasks
}

// Widest is the domain of a shape's topology with room for most tasks of a role, nobody else's being counted: how many
// those are, and a node of it. ok is false if no node is in such a domain.
func (m *Map) Widest(s *Shape, role int) (tasks int, node string, ok bool) {
	m.tidy()
	for _, d := range m.domains(s.Only(role), s.Topology.Level) {
		if tasks, node, ok = int(d.tasks), m.fixed.ids[d.places[0]], true; tasks > cluster.MaxTasks {
			tasks = cluster.MaxTasks
		}
	}
	return tasks, node, ok
}
