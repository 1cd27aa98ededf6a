package room

import (
	"maps"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// clampMilli keeps thousandths of a core far from overflow.
func clampMilli(n int64) int32 { return int32(min(max(n, -1<<29), 1<<29)) }

func phaseOf(n cluster.Node) phase {
	switch {
	case n.State == cluster.NodeReady:
		return ready
	case n.State == cluster.NodeDraining && n.Empties:
		return draining
	case n.State == cluster.NodeDraining:
		return cordoned
	}
	return lost
}

// Set adds a node or replaces what was known of it, and settles what was taken. What is used may be more than
// the node has (its agent may have come back with less): then nothing of that is free. Set reports whether
// something may fit now that did not before. A node with the revision of before, if that is not 0, is known to be
// the same node but for its state, and Set looks only at what is used of it.
func (m *Map) Set(n cluster.Node, used cluster.Resources) (gained bool) {
	m.Settle()
	place, known := m.fixed.index[n.ID]
	if !known {
		place = m.add(n.ID)
	}
	before := m.nodes[place]
	m.beforeDevices = append(m.beforeDevices[:0], m.devicesOf(&before)...)
	uuids := m.fixed.uuids[before.first : before.first+int32(before.Devices)]
	other := false
	if n.Revision == 0 || before.phase == gone || m.fixed.revisions[place] != n.Revision {
		m.beforeUUIDs = append(m.beforeUUIDs[:0], uuids...)
		uuids = m.beforeUUIDs
		other = m.describe(place, n)
	}
	if before.phase == gone {
		m.live++
	}
	m.nodes[place].phase = phaseOf(n)
	m.load(place, &n, &used)
	gained = m.gains(place, &before, uuids, other)
	if gained {
		m.gain()
	}
	m.touch(place)
	return gained
}

// spareKinds is how many kinds of nodes may be known that no node is of any more, beside as many as there are nodes.
const spareKinds = 64

// describe notes what a node has in all. It reports whether anything is other than before that constraints and
// topologies ask for, save its kind: a task may want less of it, too.
func (m *Map) describe(place int32, n cluster.Node) (other bool) {
	f := m.mutable()
	f.revisions[place] = n.Revision
	state := &m.nodes[place]
	milli, memory, devices, disk := state.CapMilli, state.CapMemory, state.Devices, f.facts[place].disk
	state.CapMilli, state.CapMemory = clampMilli(n.MilliCPU), max(0, n.Memory)
	if number := int(state.Kind); state.phase == gone || !maps.Equal(f.kinds[number].labels, n.Labels) || !slices.Equal(f.kinds[number].taints, n.Taints) {
		state.Kind = f.kindOf(n.Labels, n.Taints)
	}
	k := &f.kinds[state.Kind]
	state.guarded, state.shunned = k.tainted(cluster.EffectNoPlace, nil), k.tainted(cluster.EffectPreferNot, nil)
	f.know(place, facts{n.Disk, n.Cached})
	other = m.describeDevices(place, n.Devices)
	if m.waste > len(m.devices)/2 || len(f.kinds) > 2*len(m.nodes)+spareKinds {
		m.untidy = true
	}
	p := &m.ports[place]
	if p.first, p.last = n.PortFirst, n.PortLast; !p.within(p.next) {
		p.next = p.first
	}
	return other || state.CapMilli != milli || state.CapMemory != memory || state.Devices != devices || n.Disk != disk
}

// load works out what is free from what is used and pinned.
func (m *Map) load(place int32, node *cluster.Node, used *cluster.Resources) {
	n, p := &m.nodes[place], &m.ports[place]
	n.Milli, n.Memory = n.CapMilli-clampMilli(max(0, used.MilliCPU)), n.CapMemory-max(0, used.Memory)
	devices := m.devicesOf(n)
	for i := range devices {
		d := &devices[i]
		d.Memory, d.Milli = d.CapMemory, cluster.WholeGPU
		d.Slots = 0
		if d.layout != 0 { // it has slots, and nothing else
			d.Memory, d.Milli = 0, 0
		}
	}
	p.used = nil
	m.hold(place, used)
	for _, pin := range m.pins.byNode[node.ID] {
		n.Milli -= clampMilli(pin.resources.MilliCPU)
		n.Memory -= pin.resources.Memory
		m.hold(place, pin.resources)
	}
	m.countDevices(n)
	n.Ports = p.free()
}

// hold takes devices and ports by name.
func (m *Map) hold(place int32, r *cluster.Resources) {
	m.useNamed(place, r, 1)
	if p := &m.ports[place]; len(r.Ports) > 0 {
		p.used = p.with(r.Ports)
	}
}

// gains reports whether a node offers anything that it did not, or is another for those who choose.
func (m *Map) gains(place int32, old *State, oldUUIDs []string, other bool) bool {
	n := &m.nodes[place]
	if n.phase != ready {
		return false
	}
	if other || old.phase != ready || n.Kind != old.Kind || max(0, n.Milli) > max(0, old.Milli) || max(0, n.Memory) > max(0, old.Memory) || n.Ports > old.Ports {
		return true
	}
	devices := m.devicesOf(n)
	for i := range devices {
		d, uuid := &devices[i], m.fixed.uuids[n.first+int32(i)]
		at := i
		if at >= len(oldUUIDs) || oldUUIDs[at] != uuid {
			at = slices.Index(oldUUIDs, uuid)
		}
		if at < 0 || m.beforeDevices[at].Model != d.Model || m.beforeDevices[at].layout != d.layout {
			if d.Milli > 0 || d.Memory > 0 || d.layout != 0 {
				return true
			}
			continue
		}
		o := &m.beforeDevices[at]
		if max(0, d.Milli) > max(0, o.Milli) || max(0, d.Memory) > max(0, o.Memory) || d.Whole() && !o.Whole() || occupied(o.Slots)&^occupied(d.Slots) != 0 {
			return true
		}
	}
	return false
}
