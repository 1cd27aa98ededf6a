package room

import (
	"maps"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// pins are rooms that only one gang may take. They last over Set.
type pins struct {
	byID   map[string][]cluster.Allocation
	byNode map[string][]*pinned
}

type pinned struct {
	id        string
	resources *cluster.Resources
}

func (p *pins) clone() pins {
	c := pins{byID: maps.Clone(p.byID), byNode: make(map[string][]*pinned, len(p.byNode))}
	for node, list := range p.byNode {
		c.byNode[node] = slices.Clone(list)
	}
	return c
}

// put replaces what is pinned for a gang; nil is nothing.
func (p *pins) put(id string, allocations []cluster.Allocation) {
	for _, a := range p.byID[id] {
		list := slices.DeleteFunc(p.byNode[a.Node], func(one *pinned) bool { return one.id == id })
		if p.byNode[a.Node] = list; len(list) == 0 {
			delete(p.byNode, a.Node)
		}
	}
	delete(p.byID, id)
	if len(allocations) == 0 {
		return
	}
	p.byID[id] = allocations
	for i := range allocations {
		a := &allocations[i]
		p.byNode[a.Node] = append(p.byNode[a.Node], &pinned{id, &a.Resources})
	}
}

// Pin keeps room for a gang: nobody is given it until Unpin, whatever ends or joins meanwhile. What is pinned may still be used
// by others: then it is theirs until they end, and not free after. A gang's pin replaces its former one. It can be undone.
func (m *Map) Pin(id string, allocations []cluster.Allocation) {
	m.Unpin(id)
	m.pin(id, slices.Clone(allocations))
	for i := range allocations {
		m.shift(&allocations[i], -1)
	}
}

// Unpin makes the room that was pinned for a gang free for all: before the gang's own Take, or when it needs it no more.
func (m *Map) Unpin(id string) {
	m.tidy()
	old := m.pins.byID[id]
	if old == nil {
		return
	}
	m.rise()
	m.pin(id, nil)
	for i := range old {
		m.shift(&old[i], 1)
	}
}

func (m *Map) pin(id string, allocations []cluster.Allocation) {
	m.undo.steps = append(m.undo.steps, step{kind: pinChanged})
	m.undo.pins = append(m.undo.pins, oldPin{id, m.pins.byID[id]})
	m.pins.put(id, allocations)
}

// Pinned is the room that is kept for a gang, nil if there is none.
func (m *Map) Pinned(id string) []cluster.Allocation { return m.pins.byID[id] }
