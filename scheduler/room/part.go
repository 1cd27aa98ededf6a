package room

import (
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// near is where a device stands inside its node.
type near struct{ link, numa int16 }

// together is what the devices of one task must have in common.
type together uint8

const (
	anywhere together = iota
	sameLink
	sameNUMA
)

func togetherOf(t cluster.Topology) together {
	switch t.Level {
	case cluster.LevelNVLink:
		return sameLink
	case cluster.LevelNUMA:
		return sameNUMA
	}
	return anywhere
}

// of is the number of the group in which a device is; 0 is none.
func (t together) of(n near) int16 {
	if t == sameLink {
		return n.link
	}
	return n.numa
}

// island is the tightest group of devices that nobody uses and that are enough for the request.
func (m *Map) island(n *State, r *Request, by together) (group int16, found bool) {
	type island struct{ id, free int16 }
	var some [16]island // of a node there are few
	islands := some[:0]
	devices := m.devicesOf(n)
	for i := range devices {
		id := by.of(m.fixed.near[n.first+int32(i)])
		if id == 0 || !devices[i].Whole() || !r.Likes(devices[i].Model) {
			continue
		}
		at := slices.IndexFunc(islands, func(o island) bool { return o.id == id })
		if at < 0 {
			at = len(islands)
			islands = append(islands, island{id: id})
		}
		islands[at].free++
	}
	least := int16(0)
	for _, o := range islands {
		if int32(o.free) >= r.GPUs && (!found || o.free < least || o.free == least && o.id < group) {
			group, least, found = o.id, o.free, true
		}
	}
	return group, found
}

// countIslands is how many tasks of the request the groups of a node take, each within one.
func (m *Map) countIslands(n *State, r *Request, by together) int32 {
	free := map[int16]int32{}
	devices := m.devicesOf(n)
	for i := range devices {
		if id := by.of(m.fixed.near[n.first+int32(i)]); id != 0 && devices[i].Whole() && r.Likes(devices[i].Model) {
			free[id]++
		}
	}
	tasks := int32(0)
	for _, devices := range free { // a sum: the order does not matter
		tasks += devices / r.GPUs
	}
	return tasks
}

// countShares is how many tasks of the request the devices of a node take.
func (m *Map) countShares(n *State, r *Request) int32 {
	tasks := int32(0)
	devices := m.devicesOf(n)
	for i := range devices {
		d := &devices[i]
		if !r.FitsShare(d) {
			continue
		}
		milli, memory, _ := r.ShareOf(d)
		fit := int64(d.Milli)
		if milli > 0 {
			fit /= int64(milli)
		}
		if memory > 0 {
			fit = min(fit, d.Memory/memory)
		}
		tasks += int32(fit)
	}
	return tasks
}
