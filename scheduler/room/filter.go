package room

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// filter is a static condition on nodes: labels, required constraints and taints. What looks at labels and taints alone
// is worked out once for each kind of node.
type filter struct {
	labels      []Label
	byKind      []cluster.Constraint // on labels
	byNode      []cluster.Constraint // on what a node is and has
	tolerations []cluster.Toleration

	known, yes, shuns []uint64 // bitmaps by kind
}

// kind is what filters look at of many nodes at once.
type kind struct {
	labels     map[string]string
	taints     []cluster.Taint
	rack, zone int32 // numbers of the domains; 0 is none
}

// tainted reports whether the kind has a taint with the effect that none of the tolerations is for.
func (k *kind) tainted(effect cluster.Effect, tolerations []cluster.Toleration) bool {
	_, is := cluster.Role{Tolerations: tolerations}.Intolerable(k.taints, effect)
	return is
}

// filterKey identifies a role's filter; "" lets all nodes pass that have no taints.
func filterKey(n *Need) string {
	var text strings.Builder
	for _, l := range n.Labels {
		text.WriteString(strconv.Quote(l.Key) + "=" + strconv.Quote(l.Value) + ",")
	}
	for _, c := range n.Constraints {
		if c.Weight == 0 && !c.OfDevice() {
			fmt.Fprintf(&text, "%q %s %q,", c.Attribute, c.Operator, c.Values)
		}
	}
	for _, t := range n.Tolerations {
		fmt.Fprintf(&text, "%+q,", []string{t.Key, t.Value, strconv.FormatBool(t.Any), string(t.Effect)})
	}
	return text.String()
}

// deviceKey identifies a role's required constraints on devices.
func deviceKey(constraints []cluster.Constraint) string {
	var text strings.Builder
	for _, c := range constraints {
		if c.Weight == 0 && c.OfDevice() {
			fmt.Fprintf(&text, "%q %s %q,", c.Attribute, c.Operator, c.Values)
		}
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
		f = &filter{labels: n.Labels, tolerations: n.Tolerations}
		for _, c := range n.Constraints {
			switch {
			case c.Weight > 0 || c.OfDevice():
			case c.OfLabel():
				f.byKind = append(f.byKind, c)
			default:
				f.byNode = append(f.byNode, c)
			}
		}
		m.filters[n.class.filter] = f
	}
	return f
}

// passes reports whether a node meets the filter; nil is the filter of roles that ask for nothing and tolerate nothing.
func (m *Map) passes(f *filter, place int32) bool {
	n := &m.nodes[place]
	if f == nil {
		return !n.guarded
	}
	if !f.look(m, n.Kind) {
		return false
	}
	if len(f.byNode) > 0 {
		traits := m.traits(place)
		for _, c := range f.byNode {
			if !c.Allows(traits) {
				return false
			}
		}
	}
	return true
}

// shunned reports whether a node is one for which roles with this filter have a better use of others.
func (m *Map) shunned(f *filter, place int32) bool {
	n := &m.nodes[place]
	if f == nil || !n.shunned {
		return n.shunned
	}
	f.look(m, n.Kind) // so that it is known
	return f.shuns[n.Kind>>6]&(uint64(1)<<(n.Kind&63)) != 0
}

// look says whether nodes of a kind pass, which it works out if need be.
func (f *filter) look(m *Map, number int32) bool {
	word, bit := int(number>>6), uint64(1)<<(number&63)
	for len(f.known) <= word {
		f.known, f.yes, f.shuns = append(f.known, 0), append(f.yes, 0), append(f.shuns, 0)
	}
	if f.known[word]&bit == 0 {
		f.known[word] |= bit
		k := &m.fixed.kinds[number]
		if f.allows(k) {
			f.yes[word] |= bit
		}
		if k.tainted(cluster.EffectPreferNot, f.tolerations) {
			f.shuns[word] |= bit
		}
	}
	return f.yes[word]&bit != 0
}

func (f *filter) allows(k *kind) bool {
	if !hasLabels(k.labels, f.labels) || k.tainted(cluster.EffectNoPlace, f.tolerations) {
		return false
	}
	for _, c := range f.byKind {
		if !c.Allows(cluster.Traits{Labels: k.labels}) {
			return false
		}
	}
	return true
}

// traits are what constraints can name of a node.
func (m *Map) traits(place int32) cluster.Traits {
	n := &m.nodes[place]
	return cluster.Traits{
		ID: m.fixed.ids[place], MilliCPU: int64(n.CapMilli), Memory: n.CapMemory, Disk: m.fixed.facts[place].disk,
		GPUs: int(n.Devices), Labels: m.fixed.kinds[n.Kind].labels,
	}
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
func (f *fixed) kindOf(labels map[string]string, taints []cluster.Taint) int32 {
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		text.WriteString(strconv.Quote(key) + strconv.Quote(labels[key]))
	}
	for _, t := range taints {
		fmt.Fprintf(&text, ";%q%q%q", t.Key, t.Value, t.Effect)
	}
	number, known := f.kindIndex[text.String()]
	if !known {
		number = int32(len(f.kinds))
		k := kind{labels: labels, taints: taints}
		zone := labels[cluster.LabelZone]
		k.zone = f.domain(zone, zone != "")
		k.rack = f.domain(zone+"\x00"+labels[cluster.LabelRack], labels[cluster.LabelRack] != "")
		f.kinds = append(f.kinds, k)
		f.kindIndex[text.String()] = number
	}
	return number
}

// domain interns the name of a rack or zone.
func (f *fixed) domain(name string, there bool) int32 {
	if !there {
		return 0
	}
	number, known := f.domains[name]
	if !known {
		number = int32(len(f.domains) + 1)
		f.domains[name] = number
	}
	return number
}

// models numbers the models that are asked for, and that the constraints on devices allow.
func (m *Map) modelsFor(n *Need) uint64 {
	models := m.modelsOf(n.class.models)
	if len(n.without) > 0 {
		if models == 0 {
			models = ^models
		}
		models = models&^m.modelsOf(n.class.without) | 1<<MaxModels // never 0, which is any
	}
	if n.class.devices == "" {
		return models
	}
	allowed := uint64(0)
	for number, d := range m.fixed.examples {
		ok := models == 0 || models>>number&1 != 0
		for _, c := range n.Constraints {
			ok = ok && (c.Weight > 0 || c.AllowsDevice(d))
		}
		if ok {
			allowed |= 1 << number
		}
	}
	return allowed | 1<<MaxModels // others may come
}
