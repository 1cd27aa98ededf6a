// Package room knows what is free on every node and finds the best node for a task among thousands, fast and
// exactly: requests of one class share an array of scores with a tree over it, and only nodes that have
// changed since the class's last use are scored again. What a plan takes can be undone. It is pure: the
// same calls always give the same answers. See DESIGN.md.
package room

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/clary-ml/clary/cluster"
)

// Map is all nodes with what is free on them. It is not safe for concurrent use, save that several may
// Clone or Survey it at once. Make one with New.
type Map struct {
	policy Policy
	costly bool // the policy's scores are worth remembering by the state of the node
	memo   memo
	fixed  *fixed

	nodes   []State // by place: in the order of their IDs, once tidy
	devices []Device
	ports   []portRange
	untidy  bool // a node stands behind others that its ID comes before, or too much is wasted
	waste   int  // devices of the arena that no node has any more
	live    int

	log
	classes map[key]*class
	filters map[string]*filter
	uses    uint64 // of classes
	cells   int    // scores that classes may keep in all

	undo    undo
	groups  map[string]*group // of tasks that are spread
	tenants *tenants
	away    map[string]bool // of them, those that are taken to have ended
	shields shields
	social  bool    // somebody has asked to be near or away from others
	placed  []int32 // tasks of the gang that is being placed
	slots   map[slotKey]slot
	pins    pins

	beforeDevices []Device // what a node had before it is Set, kept for its memory
	beforeUUIDs   []string
}

// fixed is what seldom changes. Clones share it; whoever changes it copies it first.
type fixed struct {
	shared atomic.Bool

	ids       []string // by place
	index     map[string]int32
	revisions []uint64 // of the node as it was described; 0 is unknown
	uuids     []string // of devices, as in the arena
	models    map[string]int16
	kinds     []kind
	kindIndex map[string]int32
	facts     []facts // by place

	near        []near             // of devices, as in the arena
	examples    []cluster.Device   // by model: what its devices are like
	variants    map[string][]int16 // further numbers of a model whose devices are not alike
	layouts     []layout
	layoutIndex map[string]int16
	profiles    map[string]int16    // numbers of sizes of slots, from 1
	domains     map[string]int32    // numbers of racks and zones, from 1
	caches      [cacheBuckets]int32 // nodes that cache inputs, by digest
	met         int                 // rises with every model and profile that is new
}

// facts are what little is asked of a node's own.
type facts struct {
	disk   int64
	cached []uint32
}

// know replaces a node's facts.
func (f *fixed) know(place int32, now facts) {
	for _, input := range f.facts[place].cached {
		f.caches[input%cacheBuckets]--
	}
	for _, input := range now.cached {
		f.caches[input%cacheBuckets]++
	}
	f.facts[place] = now
}

// New returns a map without nodes. The policy is Tightest if it is nil.
func New(policy Policy) *Map {
	if policy == nil {
		policy = Tightest{}
	}
	_, cheap := policy.(Tightest)
	m := &Map{
		policy: policy, costly: !cheap, cells: maxCells,
		fixed: &fixed{
			index: map[string]int32{}, models: map[string]int16{}, kindIndex: map[string]int32{}, variants: map[string][]int16{},
			layoutIndex: map[string]int16{}, profiles: map[string]int16{}, domains: map[string]int32{},
		},
		slots: map[slotKey]slot{}, tenants: newTenants(),
		classes: map[key]*class{}, filters: map[string]*filter{}, groups: map[string]*group{},
		pins: pins{byID: map[string][]cluster.Allocation{}, byNode: map[string][]*pinned{}},
	}
	m.log.version = 1
	m.bind()
	return m
}

func (m *Map) bind() {
	if b, ok := m.policy.(Binder); ok {
		b.Bind(func(name string) int16 { return m.mutable().model(name) })
	}
}

// Use replaces the policy. All that was remembered of the former is forgotten.
func (m *Map) Use(policy Policy) {
	m.policy, m.memo = policy, memo{}
	_, cheap := policy.(Tightest)
	m.costly = !cheap
	clear(m.classes)
	m.bind()
	for place := range m.nodes {
		m.touch(int32(place))
	}
}

// Clone returns a copy that a reader may take from. It copies flat memory and no caches, and reads the
// map only.
func (m *Map) Clone() *Map {
	m.fixed.shared.Store(true)
	m.tenants.shared.Store(true)
	c := &Map{
		policy: m.policy, costly: m.costly, cells: m.cells, fixed: m.fixed,
		nodes: slices.Clone(m.nodes), devices: slices.Clone(m.devices), ports: slices.Clone(m.ports),
		untidy: m.untidy, live: m.live,
		classes: map[key]*class{}, filters: map[string]*filter{}, groups: make(map[string]*group, len(m.groups)),
		pins: m.pins.clone(), slots: map[slotKey]slot{}, tenants: m.tenants, away: maps.Clone(m.away), social: m.social, shields: m.shields,
	}
	for name, g := range m.groups {
		c.groups[name] = &group{byNode: maps.Clone(g.byNode)}
	}
	c.log.version = 1
	c.log.resize(len(c.nodes))
	return c
}

// Len is the number of nodes.
func (m *Map) Len() int { return m.live }

// IDs are the nodes' IDs, in order.
func (m *Map) IDs() []string {
	ids := make([]string, 0, m.live)
	for place := range m.nodes {
		if m.nodes[place].phase != gone {
			ids = append(ids, m.fixed.ids[place])
		}
	}
	slices.Sort(ids)
	return ids
}

// mutable is the fixed part, not shared with a clone.
func (m *Map) mutable() *fixed {
	if f := m.fixed; f.shared.Load() {
		m.fixed = &fixed{
			ids: slices.Clone(f.ids), index: maps.Clone(f.index), revisions: slices.Clone(f.revisions),
			uuids: slices.Clone(f.uuids), models: maps.Clone(f.models),
			kinds: slices.Clone(f.kinds), kindIndex: maps.Clone(f.kindIndex), facts: slices.Clone(f.facts),
			near: slices.Clone(f.near), examples: slices.Clone(f.examples), variants: maps.Clone(f.variants),
			layouts: slices.Clone(f.layouts), layoutIndex: maps.Clone(f.layoutIndex), profiles: maps.Clone(f.profiles),
			domains: maps.Clone(f.domains), met: f.met, caches: f.caches,
		}
	}
	return m.fixed
}

// model is a model's number.
func (f *fixed) model(name string) int16 {
	number, known := f.models[name]
	switch {
	case known:
		return number
	case len(f.models) >= MaxModels:
		return UnknownModel
	}
	number = int16(len(f.models))
	f.models[name] = number
	f.examples = append(f.examples, cluster.Device{Model: name, Memory: unmet})
	f.met++
	return number
}

// variantMark parts a model's name from what is particular of its variant.
const variantMark = "\x00"

// unmet is the memory of a model that nobody has yet.
const unmet = -1

// modelOf is the number of a device's model. Devices of one model that differ in what constraints can name have
// numbers of their own.
func (f *fixed) modelOf(d cluster.Device) int16 {
	number := f.model(d.Model)
	if number < 0 {
		return number
	}
	like := cluster.Device{Model: d.Model, Memory: d.Memory, Speed: d.Speed}
	if f.examples[number].Memory == unmet {
		f.examples[number] = like
		f.met++
	}
	alike := func(number int16) bool {
		e := f.examples[number]
		return e.Memory == like.Memory && e.Speed == like.Speed
	}
	if alike(number) {
		return number
	}
	for _, variant := range f.variants[d.Model] {
		if alike(variant) {
			return variant
		}
	}
	if number = f.model(fmt.Sprintf("%s%s%d %d", d.Model, variantMark, d.Memory, d.Speed)); number >= 0 {
		f.examples[number] = like
		f.variants[d.Model] = append(slices.Clip(f.variants[d.Model]), number)
	}
	return number
}

// add makes a place for a node that was not there.
func (m *Map) add(id string) int32 {
	f := m.mutable()
	place := int32(len(m.nodes))
	if place > 0 && id < f.ids[place-1] {
		m.untidy = true
	}
	f.ids = append(f.ids, id)
	f.index[id] = place
	f.revisions, f.facts = append(f.revisions, 0), append(f.facts, facts{})
	m.nodes = append(m.nodes, State{Model: UnknownModel, first: int32(len(m.devices))})
	m.ports = append(m.ports, portRange{})
	m.log.resize(len(m.nodes))
	return place
}

// Delete forgets a node. Its place is kept for when it comes back.
func (m *Map) Delete(id string) {
	m.Settle()
	place, known := m.fixed.index[id]
	if !known || m.nodes[place].phase == gone {
		return
	}
	n := &m.nodes[place]
	*n = State{first: n.first, Devices: n.Devices, Kind: n.Kind, phase: gone}
	m.ports[place] = portRange{}
	m.mutable().revisions[place] = 0
	m.fixed.know(place, facts{})
	m.live--
	m.touch(place)
	if len(m.nodes) > 2*m.live+64 {
		m.untidy = true
	}
}

// tidy puts nodes in the order of their IDs again, after some have joined among the others or many are gone. What
// classes know moves along.
func (m *Map) tidy() {
	if !m.untidy {
		return
	}
	m.untidy, m.waste = false, 0
	old := m.mutable()
	f := &fixed{
		index: make(map[string]int32, m.live), kindIndex: map[string]int32{}, models: old.models, examples: old.examples, variants: old.variants,
		layouts: old.layouts, layoutIndex: old.layoutIndex, profiles: old.profiles, domains: old.domains, met: old.met, caches: old.caches,
	}
	var order []int32
	for place := range m.nodes {
		if m.nodes[place].phase != gone {
			order = append(order, int32(place))
		}
	}
	slices.SortFunc(order, func(a, b int32) int { return strings.Compare(old.ids[a], old.ids[b]) })
	nodes, ports, changed := make([]State, len(order)), make([]portRange, len(order)), make([]uint64, len(order))
	devices := make([]Device, 0, len(m.devices))
	for to, from := range order {
		n := m.nodes[from]
		first, end := n.first, n.first+int32(n.Devices)
		n.first, n.Kind = int32(len(devices)), f.kindOf(old.kinds[n.Kind].labels, old.kinds[n.Kind].taints)
		devices = append(devices, m.devices[first:end]...)
		f.uuids = append(f.uuids, old.uuids[first:end]...)
		f.near, f.facts = append(f.near, old.near[first:end]...), append(f.facts, old.facts[from])
		f.ids, f.revisions = append(f.ids, old.ids[from]), append(f.revisions, old.revisions[from])
		f.index[old.ids[from]] = int32(to)
		nodes[to], ports[to], changed[to] = n, m.ports[from], m.changed[from]
	}
	m.fixed, m.nodes, m.ports, m.devices = f, nodes, ports, devices
	m.log.moved(changed)
	clear(m.filters) // the kinds have new numbers
	for _, c := range m.classes {
		c.move(order)
		if c.filter != nil {
			c.filter = m.filterOf(c.need)
		}
	}
	for _, g := range m.groups {
		g.byPlace = nil
	}
}
