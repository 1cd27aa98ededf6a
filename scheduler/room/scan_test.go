package room

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"pgregory.net/rapid"
)

// scan finds the best place by looking at all, without what any class remembers.
func (w *world) scan(m *Map, c *class, counts []int32) int32 {
	best, top := int32(-1), NoFit
	for place := range m.nodes {
		costly := m.costly
		m.costly = false // whatever the memo says
		score := m.score(int32(place), c)
		m.costly = costly
		if score == NoFit {
			continue
		}
		switch {
		case best < 0, counts != nil && counts[place] < counts[best]:
		case counts != nil && counts[place] > counts[best]:
			continue
		case score < top, score == top && m.fixed.ids[place] > m.fixed.ids[best]:
			continue
		}
		best, top = int32(place), score
	}
	return best
}

// scanTake places a gang with scan.
func (w *world) scanTake(m *Map, s *Shape) []cluster.Allocation {
	m.tidy()
	for _, order := range [][]int{s.order, s.reverse} {
		from := m.Mark()
		allocations := make([]cluster.Allocation, s.Size)
		placed := 0
		for _, role := range order {
			n := &s.Roles[role]
			c := &class{request: m.requestOf(n), filter: m.filterOf(n)}
			var counts []int32
			if n.Spread != "" {
				counts = make([]int32, len(m.nodes))
				for id, place := range m.fixed.index {
					counts[place] = int32(w.counts[n.Spread+" "+id])
				}
			}
			for done := range n.Count {
				place := w.scan(m, c, counts)
				if place < 0 {
					break
				}
				m.take(place, c, n, &allocations[n.First+done])
				if counts != nil {
					counts[place]++
				}
				placed++
			}
		}
		if placed == s.Size {
			return allocations
		}
		m.Rollback(from)
	}
	return nil
}

// check compares the map with one that is made anew from what is known to be held, and what every class
// remembers with a scan.
func (w *world) check() error {
	fresh := New(w.m.policy)
	for _, id := range []string{"p", "q"} {
		fresh.Pin(id, w.pinned[id])
	}
	for id, n := range w.nodes {
		fresh.Set(n, w.used(id))
	}
	if fresh.Len() != w.m.Len() || !slices.Equal(fresh.IDs(), w.m.IDs()) {
		return fmt.Errorf("nodes %v, should be %v", w.m.IDs(), fresh.IDs())
	}
	for id := range w.nodes {
		if got, want := w.m.portrait(id), fresh.portrait(id); !reflect.DeepEqual(got, want) {
			return fmt.Errorf("%s is %+v, should be %+v", id, got, want)
		}
	}
	for name, g := range w.m.groups {
		for id, n := range g.byNode {
			if w.counts[name+" "+id] != int(n) {
				return fmt.Errorf("%d tasks of %s on %s, should be %d", n, name, id, w.counts[name+" "+id])
			}
		}
	}
	w.m.tidy()
	for _, c := range w.m.classes {
		if c.denied != 0 && c.denied == w.m.level {
			w.counted["denied"]++
		}
		if c.seen != w.m.version && w.m.version-c.seen <= uint64(len(w.m.nodes))/4 {
			w.counted["replayed"]++
		}
		if got, want := w.m.best(c), w.scan(w.m, c, nil); got != want {
			return fmt.Errorf("%+v goes to place %d, a scan says %d", c.request, got, want)
		}
	}
	return nil
}

// portrait is all that is known of a node, whatever its place.
func (m *Map) portrait(id string) any {
	place := m.fixed.index[id]
	n := m.nodes[place]
	names := map[int16]string{}
	for name, number := range m.fixed.models {
		names[number], _, _ = strings.Cut(name, variantMark)
	}
	type named struct {
		Device
		UUID, Model string
	}
	var devices []named
	for i, d := range m.devicesOf(&n) {
		one := named{d, m.fixed.uuids[n.first+int32(i)], names[d.Model]}
		one.Device.Model = 0
		devices = append(devices, one)
	}
	p := m.ports[place]
	labels := m.fixed.kinds[n.Kind].labels
	model := names[n.Model]
	n.first, n.Kind, n.Model, n.hash = 0, 0, 0, 0
	return []any{n, labels, model, devices, p.first, p.last, append([]int32{}, p.used...)}
}

var policies = map[string]func() Policy{"tightest": func() Policy { return nil }, "emptiest": func() Policy { return emptiest{} }}

// emptiest is another policy, with many ties.
type emptiest struct{ Tightest }

func (emptiest) Score(n *State, devices []Device, _ *Request) int32 {
	score := n.Milli / 1000
	for i := range devices {
		score += int32(devices[i].Milli) / cluster.WholeGPU
	}
	return score
}

// moody changes its mind each time.
type moody struct {
	Tightest
	asked int32
}

func (p *moody) Score(*State, []Device, *Request) int32 {
	p.asked++
	return p.asked % 7
}

func TestLaws(t *testing.T) {
	for name, policy := range policies {
		t.Run(name, func(t *testing.T) {
			counted := map[string]int{}
			for range 5 { // a hundred worlds are too few to meet everything
				rapid.Check(t, func(t *rapid.T) {
					if err := play(t, policy(), mutant{}, counted); err != nil {
						t.Fatal(err)
					}
				})
			}
			for _, what := range []string{
				"set", "delete", "taken", "stuck", "half", "given", "pinned", "pinned what others hold", "unpinned", "rolled back", "nested",
				"spread", "device", "port", "label", "share", "denied", "stale", "replayed",
			} {
				if counted[what] == 0 {
					t.Errorf("%s was never exercised: %v", what, counted)
				}
			}
			t.Log(counted)
		})
	}
}

// TestTheLawsCatchMutants breaks the map in ways that a mistake in it would.
func TestTheLawsCatchMutants(t *testing.T) {
	mutants := map[string]mutant{
		"a class forgets what has changed": {after: func(m *Map) {
			for _, c := range m.classes {
				c.scores.grow(len(m.nodes))
				c.seen = m.version
			}
		}},
		"a class forgets one change": {after: func(m *Map) {
			for _, c := range m.classes {
				if c.seen == m.version-1 {
					c.seen = m.version
				}
			}
		}},
		"a tree is not worked out again": {after: func(m *Map) {
			for _, c := range m.classes {
				for place := range c.scores.leaves[:min(len(c.scores.leaves), len(m.nodes))] {
					c.scores.leaves[place] = m.score(int32(place), c)
				}
				c.seen = m.version
			}
		}},
		"a denial outlives a gain": {after: func(m *Map) {
			for _, c := range m.classes {
				if c.denied != 0 {
					c.denied = m.level
				}
			}
		}},
		"a device is not kept for undoing": {after: func(m *Map) {
			for i, d := range m.undo.devices {
				m.undo.devices[i].old = m.devices[d.at]
			}
		}},
		"a node is not kept for undoing": {after: func(m *Map) {
			for i, s := 0, 0; i < len(m.undo.steps); i++ {
				if m.undo.steps[i].kind == nodeChanged {
					m.undo.states[s] = m.nodes[m.undo.steps[i].place]
					s++
				}
			}
		}},
		"a device is sold twice": {after: func(m *Map) {
			for i := range m.devices {
				m.devices[i].Milli = cluster.WholeGPU
			}
		}},
		"a memo keeps an answer of another state": {after: func(m *Map) {
			for place := range m.nodes {
				m.nodes[place].hash = 0
			}
		}},
		"a pin is lost": {after: func(m *Map) { clear(m.pins.byNode) }},
		"a core is lost": {after: func(m *Map) {
			for place := range m.nodes {
				m.nodes[place].Milli--
			}
		}},
		"a port is given twice": {after: func(m *Map) {
			for place := range m.ports {
				m.ports[place].used = nil
			}
		}},
		"a gang is placed by half":              {taken: func(a []cluster.Allocation) []cluster.Allocation { return a[:len(a)/2] }},
		"the same question gets another answer": {policy: func() Policy { return &moody{} }},
	}
	for name, broken := range mutants {
		t.Run(name, func(t *testing.T) {
			draw := rapid.Custom(func(t *rapid.T) string {
				policy := rapid.SampledFrom([]Policy{Tightest{}, emptiest{}}).Draw(t, "policy")
				if broken.policy != nil {
					policy = broken.policy()
				}
				if err := play(t, policy, broken, map[string]int{}); err != nil {
					return err.Error()
				}
				return ""
			})
			for seed := range 3000 {
				if err := draw.Example(seed); err != "" {
					t.Logf("caught by seed %d: %s", seed, err)
					return
				}
			}
			t.Error("no law catches it")
		})
	}
}
