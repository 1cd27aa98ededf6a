package room

import (
	"maps"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// Guest is the gang that a shape is placed for, as those see it that keep others away.
type Guest struct {
	ID     string
	Job    string
	Labels map[string]string // of its job
}

// Away are the affinities by which a gang keeps others away from all of its tasks: those that are required of every role. What only some of
// its roles ask for keeps these away from others, and nobody from them.
func Away(roles []cluster.Role) []cluster.Affinity {
	var away []cluster.Affinity
	for i := range roles {
		if i == 0 {
			away = slices.Clone(roles[i].Affinities)
		}
		away = slices.DeleteFunc(away, func(a cluster.Affinity) bool {
			return !a.Anti || a.Weight != 0 || !slices.Contains(roles[i].Affinities, a)
		})
	}
	return away
}

// shields are what gangs keep away from where they run and from the room that is kept for them, by ID. Clones share them; whoever
// changes them copies them first.
type shields map[string][]cluster.Affinity

// Shield has a gang keep others away, in place of what it did before; nil is none. It lasts over House, Pin and their reverse, and cannot be
// undone.
func (m *Map) Shield(id string, away []cluster.Affinity) {
	if len(away) == 0 && m.shields[id] == nil {
		return
	}
	m.shields = maps.Clone(m.shields)
	if m.shields == nil {
		m.shields = shields{}
	}
	if m.shields[id] = away; len(away) == 0 {
		delete(m.shields, id)
	}
}

// Shields reports whether any gang keeps others away.
func (m *Map) Shields() bool { return len(m.shields) > 0 }

// Shuns reports whether any gang keeps a guest away, if it holds or keeps room.
func (m *Map) Shuns(g *Guest) bool {
	for id, away := range m.shields { // in any order
		if id == g.ID {
			continue
		}
		for i := range away {
			if away[i].Matches(g.Job, g.Labels) {
				return true
			}
		}
	}
	return false
}

// For is the shape placed for a guest: not where others keep it away.
func (s *Shape) For(g *Guest) *Shape {
	other := *s
	other.Roles = slices.Clone(s.Roles)
	for i := range other.Roles {
		other.Roles[i].guest = g
	}
	return &other
}

// barredFor marks the places where others keep a guest away; nil is none.
func (m *Map) barredFor(g *Guest) []bool {
	if g == nil {
		return nil
	}
	var barred []bool
	for id, away := range m.shields { // marks: the order does not matter
		if id == g.ID {
			continue
		}
		for _, a := range away {
			if a.Matches(g.Job, g.Labels) {
				barred = m.keepAway(barred, id, a.Over)
			}
		}
	}
	return barred
}

// keepAway marks the domains in which a gang runs or keeps room.
func (m *Map) keepAway(barred []bool, id string, over cluster.Level) []bool {
	domains := map[int32]bool{}
	mark := func(at []cluster.Allocation) {
		for i := range at {
			if place, known := m.fixed.index[at[i].Node]; known {
				domains[m.domainOf(place, over)] = true
			}
		}
	}
	if t := m.tenants.byID[id]; t != nil && !m.away[id] {
		mark(t.At)
	}
	mark(m.pins.byID[id])
	delete(domains, 0) // no rack, no zone
	for place := range m.nodes {
		if domains[m.domainOf(int32(place), over)] {
			if barred == nil {
				barred = make([]bool, len(m.nodes))
			}
			barred[place] = true
		}
	}
	return barred
}
