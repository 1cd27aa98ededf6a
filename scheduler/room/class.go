package room

import (
	"math/bits"
	"slices"
	"strings"
)

// maxCells bounds what classes remember: so many scores in all, at 4.3 bytes each. Beyond, the class that was
// not used for longest is forgotten.
const maxCells = 16 << 20

// minClasses are kept however many nodes there are.
const minClasses = 16

// class is all requests that are alike: how good each node is for one more of them.
type class struct {
	key     key
	need    *Need // one of them
	request Request
	filter  *filter
	scores  tree
	seen    uint64 // changes up to here are in the scores
	used    uint64 // when it was last used, in uses of classes
	denied  uint64 // the level at which it fit nowhere, 0 for none
	salt    uint64 // of its questions to a costly policy
}

// log is which nodes have changed, so that every class scores only those that did since its last use.
type log struct {
	version uint64   // of the next change
	ring    []int32  // places of the latest changes, by version
	changed []uint64 // by place: version of its latest change
	from    uint64   // the ring knows changes from here on
	level   uint64   // rises whenever a node may have gained room
	levels  uint64   // levels given out
}

// resize makes room for so many nodes.
func (l *log) resize(nodes int) {
	for len(l.changed) < nodes {
		l.changed = append(l.changed, l.version)
	}
	if len(l.ring) < 2*nodes {
		l.ring = make([]int32, max(1024, 2*len(l.ring), 1<<bits.Len(uint(2*nodes-1))))
		l.from = l.version
	}
}

// moved replaces what was known by place: the ring's places are those of before.
func (l *log) moved(changed []uint64) {
	l.changed = changed
	l.from = l.version
}

// touch notes that a node has changed.
func (m *Map) touch(place int32) {
	if n := &m.nodes[place]; m.costly {
		n.hash = digest(n, m.devicesOf(n))
	}
	m.ring[m.version&uint64(len(m.ring)-1)] = place
	m.changed[place] = m.version
	m.version++
}

// gain notes that something may fit now that did not before.
func (m *Map) gain() {
	m.levels++
	m.level = m.levels
}

// classOf finds or makes the class of a role's requests.
func (m *Map) classOf(n *Need) *class {
	c := m.classes[n.class]
	if c == nil {
		c = m.newClass(n)
	}
	m.uses++
	c.used = m.uses
	return c
}

func (m *Map) newClass(n *Need) *class {
	c := &class{key: n.class, need: n, request: m.requestOf(n), filter: m.filterOf(n), salt: m.memo.salt()}
	if len(m.classes) >= max(minClasses, m.cells/max(1, len(m.nodes))) {
		c.scores = m.forgetOldest()
	}
	m.classes[n.class] = c
	return c
}

// requestOf is what one task of a role needs, in the numbers of this map.
func (m *Map) requestOf(n *Need) Request {
	r := n.class.request
	r.Models = m.modelsFor(n)
	if n.Ask.MIG != "" {
		if r.Profile = m.fixed.profiles[n.Ask.MIG]; r.Profile == 0 {
			r.Profile = unknownProfile
		}
	}
	return r
}

// unknownProfile is one that no device has been cut into yet.
const unknownProfile = -1

// modelsOf turns a list of models, separated by commas, into Request.Models.
func (m *Map) modelsOf(list string) uint64 {
	models := uint64(0)
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		number, known := m.fixed.models[name]
		if !known {
			number = MaxModels
		}
		models |= 1 << number
		for _, variant := range m.fixed.variants[name] {
			models |= 1 << variant
		}
	}
	return models
}

// forgetOldest drops the class that was not used for longest, and returns its memory.
func (m *Map) forgetOldest() tree {
	var oldest *class
	for _, c := range m.classes { // no two were used at once: the order decides nothing
		if oldest == nil || c.used < oldest.used {
			oldest = c
		}
	}
	delete(m.classes, oldest.key)
	if len(m.filters) > 2*len(m.classes)+64 {
		clear(m.filters) // classes keep theirs
	}
	return oldest.scores
}

// forgetUnknown drops classes that name models, or a profile that nobody had until now: there is one more.
func (m *Map) forgetUnknown() {
	for k, c := range m.classes {
		if c.request.Models != 0 || c.request.Profile == unknownProfile {
			delete(m.classes, k)
		}
	}
}

// best is the place of the best node for one more task of the class, or -1.
func (m *Map) best(c *class) int32 {
	if c.denied != 0 && c.denied == m.level {
		return -1
	}
	m.sync(c)
	place := int32(c.scores.first())
	if place < 0 {
		m.deny(c)
	}
	return place
}

// deny remembers that a class fits nowhere, until some node gains room or what was taken is undone.
func (m *Map) deny(c *class) {
	if m.level == 0 {
		m.gain()
	}
	c.denied = m.level
	if at := len(m.undo.steps); at > 0 {
		m.undo.denials = append(m.undo.denials, denial{c, at})
	}
}

// sync scores the nodes again that have changed since the class was last used.
func (m *Map) sync(c *class) {
	if c.seen == m.version {
		return
	}
	c.scores.grow(len(m.nodes))
	if lag := m.version - c.seen; c.seen < m.from || lag > uint64(len(m.nodes))/4 {
		for place, at := range m.changed {
			if at >= c.seen {
				c.scores.leaves[place] = m.score(int32(place), c)
			}
		}
		c.scores.build()
	} else {
		mask := uint64(len(m.ring) - 1)
		for v := c.seen; v < m.version; v++ {
			if place := m.ring[v&mask]; m.changed[place] == v { // else it changed again later
				c.scores.set(int(place), m.score(place, c))
			}
		}
	}
	c.seen = m.version
}

// move puts scores where their nodes are now; order has the old places by the new.
func (c *class) move(order []int32) {
	leaves := make([]int32, 0, len(order)+fan)
	for _, from := range order {
		score := NoFit
		if int(from) < len(c.scores.leaves) {
			score = c.scores.leaves[from]
		}
		leaves = append(leaves, score)
	}
	for len(leaves)%fan != 0 {
		leaves = append(leaves, NoFit)
	}
	c.scores.leaves = slices.Clip(leaves)
	c.scores.above = nil
	c.scores.build()
}

// score is how good a node is for one more task of the class.
func (m *Map) score(place int32, c *class) int32 {
	n, r := &m.nodes[place], &c.request
	if n.phase != ready || r.Milli > max(0, n.Milli) || r.Memory > max(0, n.Memory) || r.Ports > n.Ports {
		return NoFit
	}
	if !m.passes(c.filter, place) || !m.fitsDevices(n, r) {
		return NoFit
	}
	score := int32(0)
	switch {
	case r.Profile != 0:
		score = m.slotScore(n, r)
	case m.costly:
		score = m.memo.score(m.policy, n, m.devicesOf(n), c)
	default:
		score = m.policy.Score(n, m.devicesOf(n), r)
	}
	if n.shunned && m.shunned(c.filter, place) {
		score = max(score>>1-1<<30, NoFit+1) // behind all others, as scores are not negative
	}
	return score
}

// fitsDevices reports whether the node has the devices that the request is for.
func (m *Map) fitsDevices(n *State, r *Request) bool {
	switch {
	case r.Profile != 0:
		return m.countSlots(n, r) >= r.GPUs
	case r.GPUs > 0:
		return m.fitsWhole(n, r)
	case r.shares():
		return m.fitsShare(n, r)
	}
	return true
}
