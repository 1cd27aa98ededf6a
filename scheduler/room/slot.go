package room

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// A device that is partitioned (MIG) is given in slots. Its slices are counted, four bits each, so that slots can be
// taken twice (by who has one and by who it is kept for) and given back one by one.

// eachSlice has a one for every slice.
const eachSlice = 0x1111_1111_1111_1111

// occupied has a one for every slice that anybody has.
func occupied(slots uint64) uint64 {
	return (slots | slots>>1 | slots>>2 | slots>>3) & eachSlice
}

// pattern has a one for every slice of a slot.
func pattern(size, start int32) uint64 {
	return (uint64(1)<<(4*size) - 1) & eachSlice << (4 * start)
}

// layout is how a device can be cut; devices that are cut alike share one. Layout 0 is none.
type layout struct {
	profiles []cluster.MIGProfile
	numbers  []int16 // of the profiles' names
}

// layoutOf interns how a device can be cut.
func (f *fixed) layoutOf(d cluster.Device) int16 {
	if !d.Partitioned {
		return 0
	}
	var text strings.Builder
	for _, p := range d.Profiles {
		fmt.Fprintf(&text, "%s %d %d %v;", p.Name, p.Slices, p.Memory, p.Starts)
	}
	number, known := f.layoutIndex[text.String()]
	if known {
		return number
	}
	l := layout{profiles: slices.Clone(d.Profiles)}
	for _, p := range d.Profiles {
		name, known := f.profiles[p.Name]
		if !known {
			name = int16(len(f.profiles) + 1)
			f.profiles[p.Name] = name
			f.met++
		}
		l.numbers = append(l.numbers, name)
	}
	if len(f.layouts) == 0 {
		f.layouts = append(f.layouts, layout{})
	}
	number = int16(len(f.layouts))
	f.layouts = append(f.layouts, l)
	f.layoutIndex[text.String()] = number
	return number
}

// profile is a size of slots by its number, nil if the layout has none.
func (f *fixed) profile(layout, number int16) *cluster.MIGProfile {
	if layout == 0 {
		return nil
	}
	if i := slices.Index(f.layouts[layout].numbers, number); i >= 0 {
		return &f.layouts[layout].profiles[i]
	}
	return nil
}

// patternOf is the slices that a slot has which a task was given. A device that is cut in another way by now is given
// to nobody until that task has ended.
func (f *fixed) patternOf(layout int16, share cluster.DeviceShare) uint64 {
	if p := f.profile(layout, f.profiles[share.Profile]); p != nil && share.Start >= 0 && share.Start <= cluster.MaxSlices-p.Slices {
		return pattern(p.Slices, share.Start)
	}
	return eachSlice
}

func (m *Map) useSlot(at int32, slices uint64, sign int32) {
	d := &m.devices[at]
	m.undo.device(at, *d)
	if sign > 0 {
		d.Slots += slices
	} else {
		d.Slots -= slices
	}
}

// slotKey is a question that devices in one state have in common: where would a slot go?
type slotKey struct {
	layout, profile int16
	occupied        uint64
}

// slot is the answer: where, and what larger slots it spoils, in slices; start is -1 if there is no room.
type slot struct {
	start  int32
	spoils int32
}

// slotIn finds where a slot goes in a device, so that as much as possible of what is free stays usable for large ones.
func (m *Map) slotIn(d *Device, profile int16) slot {
	key := slotKey{d.layout, profile, occupied(d.Slots)}
	found, known := m.slots[key]
	if known {
		return found
	}
	found = slot{start: -1}
	if p := m.fixed.profile(d.layout, profile); p != nil {
		before := m.placeable(d.layout, key.occupied)
		for _, start := range p.Starts {
			taken := pattern(p.Slices, start)
			if key.occupied&taken != 0 {
				continue
			}
			if spoils := before - m.placeable(d.layout, key.occupied|taken); found.start < 0 || spoils < found.spoils {
				found = slot{start, spoils}
			}
		}
	}
	m.slots[key] = found
	return found
}

// placeable is the slices of all slots that could still begin somewhere, each counted for itself: a large one weighs more.
func (m *Map) placeable(layout int16, occupied uint64) int32 {
	total := int32(0)
	for _, p := range m.fixed.layouts[layout].profiles {
		for _, start := range p.Starts {
			if occupied&pattern(p.Slices, start) == 0 {
				total += p.Slices
			}
		}
	}
	return total
}

// bestSlot finds the device of a node in which one more slot spoils least, of equals the one that is fullest.
func (m *Map) bestSlot(devices []Device, r *Request) (at int, best slot) {
	at, best = -1, slot{start: -1}
	for i := range devices {
		d := &devices[i]
		if d.layout == 0 || !r.Likes(d.Model) {
			continue
		}
		s := m.slotIn(d, r.Profile)
		if s.start < 0 {
			continue
		}
		if at < 0 || s.spoils < best.spoils || s.spoils == best.spoils && bits.OnesCount64(occupied(d.Slots)) > bits.OnesCount64(occupied(devices[at].Slots)) {
			at, best = i, s
		}
	}
	return at, best
}

// countSlots is how many slots of the request's profile a node has room for.
func (m *Map) countSlots(n *State, r *Request) int32 {
	count := int32(0)
	for _, d := range m.devicesOf(n) { // copies: what is taken of them is forgotten
		if d.layout == 0 || !r.Likes(d.Model) {
			continue
		}
		for s := m.slotIn(&d, r.Profile); s.start >= 0; s = m.slotIn(&d, r.Profile) {
			d.Slots |= pattern(m.fixed.profile(d.layout, r.Profile).Slices, s.start)
			count++
		}
	}
	return count
}

// slotScore prefers the node that one more slot spoils least.
func (m *Map) slotScore(n *State, r *Request) int32 {
	devices := m.devicesOf(n)
	at, s := m.bestSlot(devices, r)
	if at < 0 {
		return NoFit
	}
	return shareUnit - s.spoils<<10 + int32(bits.OnesCount64(occupied(devices[at].Slots)))<<4
}

// takeSlots gives so many slots to one task.
func (m *Map) takeSlots(place int32, r *Request) []cluster.DeviceShare {
	n := &m.nodes[place]
	devices := m.devicesOf(n)
	var taken []cluster.DeviceShare
	for range r.GPUs {
		i, s := m.bestSlot(devices, r)
		at := n.first + int32(i)
		p := m.fixed.profile(devices[i].layout, r.Profile)
		m.useSlot(at, pattern(p.Slices, s.start), 1)
		taken = append(taken, cluster.DeviceShare{UUID: m.fixed.uuids[at], Profile: p.Name, Start: s.start, Memory: p.Memory})
	}
	slices.SortFunc(taken, cluster.CompareShares)
	return taken
}
