package room

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// wish is what a role asks for that differs between nodes of one score: such roles look at all nodes.
type wish struct {
	over       cluster.Level // one place for Spread
	pack       bool
	near       together // preferred
	prefers    []cluster.Constraint
	affinities []affinity
	inputs     []uint32 // digests, sorted
}

type affinity struct {
	cluster.Affinity
	own bool // the gang's own tasks are among those that are meant
}

// wishOf reads a role, nil if it asks for nothing of the kind.
func wishOf(job string, role *cluster.Role) *wish {
	w := wish{over: role.Over, pack: role.Pack}
	if role.Topology.Preferred {
		w.near = togetherOf(role.Topology)
	}
	for _, c := range role.Constraints {
		if c.Weight > 0 {
			w.prefers = append(w.prefers, c)
		}
	}
	for _, a := range role.Affinities {
		w.affinities = append(w.affinities, affinity{a, a.Job == job && job != ""})
	}
	for _, input := range role.Program.Inputs {
		w.inputs = append(w.inputs, cluster.InputDigest(input.URI))
	}
	slices.Sort(w.inputs)
	w.inputs = slices.Compact(w.inputs)
	if !w.looks() && len(w.inputs) == 0 {
		return nil
	}
	return &w
}

// looks reports whether the wish concerns more than inputs, which hardly any node may have.
func (w *wish) looks() bool {
	return w.over != "" && w.over != cluster.LevelNode || w.pack || w.near != anywhere || len(w.prefers)+len(w.affinities) > 0
}

// nearOf is what the devices of one task must have in common.
func nearOf(t cluster.Topology) together {
	if t.Preferred {
		return anywhere
	}
	return togetherOf(t)
}

// placeKey adds to a shape's key what a role says of where its tasks run.
func placeKey(text *strings.Builder, job string, role *cluster.Role) {
	ask := &role.Ask
	if ask.Shares() || ask.MIG != "" {
		fmt.Fprintf(text, "share %d %d %q;", ask.GPUMilli, ask.GPUMemory, ask.MIG)
	}
	if role.Over != "" || role.Pack {
		fmt.Fprintf(text, "over %s %t;", role.Over, role.Pack)
	}
	if len(role.Constraints)+len(role.Tolerations) > 0 {
		fmt.Fprintf(text, "%+q %+q;", role.Constraints, fmt.Sprint(role.Tolerations))
	}
	if len(role.Affinities) > 0 {
		fmt.Fprintf(text, "%q %q;", job, fmt.Sprintf("%+v", role.Affinities))
	}
	if role.Topology.Level != "" {
		fmt.Fprintf(text, "in one %v;", role.Topology)
	}
	for _, input := range role.Program.Inputs {
		fmt.Fprintf(text, "%q;", input.URI)
	}
}

// look is a search over all nodes for the tasks of one role.
type look struct {
	m       *Map
	c       *class
	wish    *wish
	group   *group
	points  []int32 // by place: how much is preferred there
	barred  []bool  // by place: ruled out by affinity; nil for none
	own     []ownRule
	domains []int32 // by place, for Spread; nil if each node is one
	counts  []int32 // by domain
}

// lookFor prepares a search, nil if the class and the group say all.
func (m *Map) lookFor(c *class, need *Need, g *group) *look {
	w, barred := need.wish, m.barredFor(need.guest)
	if barred == nil && (w == nil || !w.looks() && !m.cached(w)) {
		return nil
	}
	l := &look{m: m, c: c, wish: w, group: g, points: make([]int32, len(m.nodes)), barred: barred}
	if w == nil {
		l.wish = &wish{}
		return l
	}
	for place := range m.nodes {
		l.points[place] = m.prefers(w, int32(place))
	}
	if g != nil && (w.over == cluster.LevelRack || w.over == cluster.LevelZone) {
		l.domains = m.domainsOf(w.over)
	}
	for i := range w.affinities {
		l.bar(&w.affinities[i])
	}
	return l
}

// Points of what is preferred beside weights that are named.
const (
	cachedPoints = 50 // all inputs are in the node's cache
	nearPoints   = 100
)

// prefers adds up what a role prefers of a node that stays as it is while a plan is made.
func (m *Map) prefers(w *wish, place int32) int32 {
	points := int32(0)
	if len(w.prefers) > 0 {
		traits := m.traits(place)
		for _, c := range w.prefers {
			if c.OfDevice() && m.anyDevice(&m.nodes[place], c) || !c.OfDevice() && c.Allows(traits) {
				points += c.Weight
			}
		}
	}
	if have := m.fixed.facts[place].cached; len(have) > 0 && len(w.inputs) > 0 {
		found := 0
		for _, input := range w.inputs {
			if _, there := slices.BinarySearch(have, input); there {
				found++
			}
		}
		points += int32(cachedPoints * found / len(w.inputs))
	}
	return points
}

// anyDevice reports whether a device of the node is as a constraint says and has something free.
func (m *Map) anyDevice(n *State, c cluster.Constraint) bool {
	devices := m.devicesOf(n)
	return slices.ContainsFunc(devices, func(d Device) bool {
		return d.Model >= 0 && (d.Milli > 0 || d.layout != 0) && c.AllowsDevice(m.fixed.examples[d.Model])
	})
}

// cacheBuckets is how many counters there are of what nodes cache: two inputs in one cost a needless look.
const cacheBuckets = 4096

// cached reports whether a node may have one of the inputs.
func (m *Map) cached(w *wish) bool {
	return slices.ContainsFunc(w.inputs, func(input uint32) bool { return m.fixed.caches[input%cacheBuckets] > 0 })
}

// domainsOf is the number of each node's rack or zone, by place; nodes without one are one.
func (m *Map) domainsOf(level cluster.Level) []int32 {
	domains := make([]int32, len(m.nodes))
	for place := range m.nodes {
		domains[place] = m.domainOf(int32(place), level)
	}
	return domains
}

// domainOf is the number of a node's rack or zone, or of itself; 0 is none.
func (m *Map) domainOf(place int32, level cluster.Level) int32 {
	k := &m.fixed.kinds[m.nodes[place].Kind]
	switch level {
	case cluster.LevelRack:
		return k.rack
	case cluster.LevelZone:
		return k.zone
	}
	return place + 1
}

// count is how many of the tasks that are spread together each domain has.
func (l *look) count() {
	if l.domains == nil {
		return
	}
	l.counts = append(l.counts[:0], make([]int32, len(l.m.fixed.domains)+1)...)
	for place, tasks := range l.group.byPlace {
		l.counts[l.domains[place]] += tasks
	}
}

// best is the place that the role's next task prefers, or -1. First comes how many of the tasks there are with which
// it is spread or packed, then what it prefers, then the score.
func (l *look) best() int32 {
	m, c := l.m, l.c
	m.sync(c)
	l.count()
	best, bestTasks, bestPoints, bestScore := int32(-1), int32(0), int32(0), NoFit
	for place, score := range c.scores.leaves[:len(m.nodes)] {
		if score == NoFit || l.ruledOut(int32(place)) {
			continue
		}
		tasks, points := l.tasks(int32(place)), l.points[place]
		if l.wish.near != anywhere && c.request.GPUs > 1 {
			if _, found := m.island(&m.nodes[place], &c.request, l.wish.near); found {
				points += nearPoints
			}
		}
		if best >= 0 {
			switch {
			case tasks != bestTasks:
				if tasks > bestTasks {
					continue
				}
			case points != bestPoints:
				if points < bestPoints {
					continue
				}
			case score <= bestScore:
				continue
			}
		}
		best, bestTasks, bestPoints, bestScore = int32(place), tasks, points, score
	}
	return best
}

// tasks is how many are there of those with which the role is spread; the fewer the better, negative if it packs.
func (l *look) tasks(place int32) int32 {
	tasks := int32(0)
	switch {
	case l.group == nil:
	case l.domains != nil:
		tasks = l.counts[l.domains[place]]
	default:
		tasks = l.group.byPlace[place]
	}
	if l.wish.pack {
		return -tasks
	}
	return tasks
}
