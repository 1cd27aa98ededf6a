package room

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// filter is a static condition on nodes. It is worked out once for each kind of node.
type filter struct {
	labels     []Label
	known, yes []uint64 // bitmaps by kind
}

// filterKey identifies a role's filter; "" lets all nodes pass.
func filterKey(n *Need) string {
	var text strings.Builder
	for _, l := range n.Labels {
		text.WriteString(strconv.Quote(l.Key) + "=" + strconv.Quote(l.Value) + ",")
	}
	return text.String()
}

// filterOf interns the filter of a role, nil if it has none.
func (m *Map) filterOf(n *Need) *filter {
	if n.class.filter == "" {
		return nil
	}
	f := m.filters[n.class.filter]
	if f == nil {
		f = &filter{labels: n.Labels}
		m.filters[n.class.filter] = f
	}
	return f
}

// passes reports whether nodes of a kind meet the filter.
func (m *Map) passes(f *filter, kind int32) bool {
	word, bit := int(kind>>6), uint64(1)<<(kind&63)
	for len(f.known) <= word {
		f.known, f.yes = append(f.known, 0), append(f.yes, 0)
	}
	if f.known[word]&bit == 0 {
		f.known[word] |= bit
		if hasLabels(m.fixed.kinds[kind], f.labels) {
			f.yes[word] |= bit
		}
	}
	return f.yes[word]&bit != 0
}

func hasLabels(has map[string]string, want []Label) bool {
	for _, l := range want {
		if value, ok := has[l.Key]; !ok || value != l.Value {
			return false
		}
	}
	return true
}

// kindOf interns what filters look at of a node.
func (f *fixed) kindOf(labels map[string]string) int32 {
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		text.WriteString(strconv.Quote(key) + strconv.Quote(labels[key]))
	}
	kind, known := f.kindIndex[text.String()]
	if !known {
		kind = int32(len(f.kinds))
		f.kinds = append(f.kinds, labels)
		f.kindIndex[text.String()] = kind
	}
	return kind
}
