package room

import "github.com/clary-ml/clary/cluster"

// Mark is a state to come back to.
type Mark struct {
	steps   int
	settled uint64
}

// undo is how every change since the last Settle is taken back, the latest first. Each sort of change has a
// stack of its own, so that a step stays small.
type undo struct {
	settled uint64 // how often something was settled
	steps   []step
	states  []State
	devices []oldDevice
	ports   []portRange
	groups  []*group
	pins    []oldPin
	levels  []uint64
	denials []denial
	left    []string // tenants
}

type step struct {
	kind    stepKind
	ports   bool // the node's ports were kept, too
	place   int32
	devices int32 // that were kept
}

type stepKind uint8

const (
	nodeChanged stepKind = iota
	taskCounted
	pinChanged
	levelRose
	tenantLeft
)

type oldDevice struct {
	at  int32
	old Device
}

type oldPin struct {
	id  string
	old []cluster.Allocation
}

// denial is a class that fit nowhere after so many steps.
type denial struct {
	class *class
	at    int
}

// node keeps a node as it is, before it changes.
func (u *undo) node(place int32, n State) {
	u.steps = append(u.steps, step{kind: nodeChanged, place: place})
	u.states = append(u.states, n)
}

// device keeps a device of the node of the latest step. Outside a step nothing is kept: Set cannot be undone.
func (u *undo) device(at int32, d Device) {
	if len(u.steps) > 0 {
		u.devices = append(u.devices, oldDevice{at, d})
		u.steps[len(u.steps)-1].devices++
	}
}

// port keeps the ports of the node of the latest step.
func (u *undo) port(p portRange) {
	u.ports = append(u.ports, p)
	u.steps[len(u.steps)-1].ports = true
}

// Mark remembers the state as it is now. Marks nest: rolling back to one forgets those that came later.
func (m *Map) Mark() Mark {
	m.tidy()
	return Mark{len(m.undo.steps), m.undo.settled}
}

// Rollback undoes all that was taken, given and pinned since the mark, exactly. It panics if that was settled meanwhile: then
// nobody knows any more what it was.
func (m *Map) Rollback(to Mark) {
	u := &m.undo
	if to.settled != u.settled {
		panic("room: Rollback to a mark from before Settle, Set or Delete")
	}
	for len(u.steps) > to.steps {
		s := pop(&u.steps)
		switch s.kind {
		case nodeChanged:
			for range s.devices {
				d := pop(&u.devices)
				m.devices[d.at] = d.old
			}
			if s.ports {
				m.ports[s.place] = pop(&u.ports)
			}
			m.nodes[s.place] = pop(&u.states)
			m.touch(s.place)
		case taskCounted:
			pop(&u.groups).add(m, s.place, -1)
		case pinChanged:
			p := pop(&u.pins)
			m.pins.put(p.id, p.old)
		case levelRose:
			m.level = pop(&u.levels)
		case tenantLeft:
			delete(m.away, pop(&u.left))
		}
	}
	for len(u.denials) > 0 && u.denials[len(u.denials)-1].at > to.steps {
		pop(&u.denials).class.denied = 0
	}
}

func pop[T any](stack *[]T) T {
	last := (*stack)[len(*stack)-1]
	*stack = (*stack)[:len(*stack)-1]
	return last
}

// Settle keeps all changes for good: nothing before it can be rolled back.
func (m *Map) Settle() {
	u := &m.undo
	if len(u.steps) == 0 {
		return
	}
	clear(u.ports) // what they point to may be forgotten
	clear(u.groups)
	clear(u.pins)
	clear(u.denials)
	*u = undo{
		settled: u.settled + 1, steps: u.steps[:0], states: u.states[:0], devices: u.devices[:0], ports: u.ports[:0],
		groups: u.groups[:0], pins: u.pins[:0], levels: u.levels[:0], denials: u.denials[:0], left: u.left[:0],
	}
}
