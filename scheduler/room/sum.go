package room

import (
	"encoding/binary"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
)

// Sum is a checksum of all that decides where something goes: equal sums, equal plans. It does not depend on the
// order in which the nodes came.
func (m *Map) Sum() uint64 {
	h := fnv.New64a()
	word := func(numbers ...int64) {
		var b [8]byte
		for _, n := range numbers {
			binary.LittleEndian.PutUint64(b[:], uint64(n))
			h.Write(b[:])
		}
	}
	text := func(s string) { word(int64(len(s))); h.Write([]byte(s)) }
	names := make([]string, len(m.fixed.models))
	for name, number := range m.fixed.models {
		names[number], _, _ = strings.Cut(name, variantMark)
	}
	for _, id := range m.IDs() {
		place := m.fixed.index[id]
		n, p := &m.nodes[place], &m.ports[place]
		text(id)
		labels := m.fixed.kinds[n.Kind].labels
		for _, key := range slices.Sorted(maps.Keys(labels)) {
			text(key)
			text(labels[key])
		}
		word(int64(n.phase), n.Memory, n.CapMemory, int64(n.Milli), int64(n.CapMilli), int64(n.Ports), int64(n.DeviceMilli), int64(n.MaxMilli), int64(n.Whole))
		for i, d := range m.devicesOf(n) {
			text(m.fixed.uuids[n.first+int32(i)])
			if d.Model >= 0 {
				text(names[d.Model])
			}
			word(d.Memory, d.CapMemory, int64(d.Milli), int64(d.Slots), int64(d.layout))
		}
		word(int64(p.first), int64(p.last), int64(p.next), int64(len(p.used)))
		for _, port := range p.used {
			word(int64(port))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.groups)) {
		g := m.groups[name]
		for _, id := range slices.Sorted(maps.Keys(g.byNode)) {
			text(name)
			text(id)
			word(int64(g.byNode[id]))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.pins.byID)) {
		text(id)
		for _, a := range m.pins.byID[id] {
			text(a.Node)
			word(a.Resources.MilliCPU, a.Resources.Memory)
			for _, uuid := range a.Resources.Devices {
				text(uuid)
			}
			for _, share := range a.Resources.Shares {
				text(share.UUID)
				word(int64(share.Milli), share.Memory)
			}
		}
	}
	return h.Sum64()
}
