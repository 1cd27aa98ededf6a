package planner

import (
	"container/heap"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

// memory is what the planner knows. Gangs that are held, stopped or back off are known
// and nothing more: they cost nothing at an event. Of the active ones that did not fit,
// only those are tried again for which something has changed: all, when a node gained
// room; else those that are new.
type memory struct {
	view    *scheduler.View
	shapes  scheduler.Shapes
	waiting map[string]*entry   // by gang ID: every gang without tasks
	byJob   map[string][]string // gang IDs, sorted
	active  []*entry            // may be placed; in the order of scheduler.Before
	fresh   map[*entry]bool     // active, and not tried since it became so
	gained  bool                // a node has room that it did not have
	asleep  sleepers            // wait for an instant
	spread  map[string][]spread // by gang ID: its tasks that hold something, of roles that are spread
}

// spread is a task that others are kept away from.
type spread struct{ job, by, node string }

type entry struct {
	ask    scheduler.Ask
	until  int64 // not active before, if greater than zero
	active bool
}

func newMemory() *memory {
	return &memory{view: scheduler.NewView(), waiting: map[string]*entry{}, byJob: map[string][]string{}, fresh: map[*entry]bool{}, spread: map[string][]spread{}}
}

func (m *memory) putNode(node cluster.Node, used cluster.Resources) {
	if m.view.Set(node, used) {
		m.gained = true
	}
}

// putGang notes a gang as it is now.
func (m *memory) putGang(gang cluster.Gang, placed bool) {
	id := gang.ID()
	if placed {
		m.drop(id)
		return
	}
	if old := m.waiting[id]; old != nil && old.ask.Revision == gang.Revision {
		return // nothing new: it keeps its place, and its pause
	}
	m.drop(id)
	e := &entry{ask: m.shapes.Ask(gang), until: gang.NotBefore}
	m.waiting[id] = e
	gangs := m.byJob[gang.Job]
	at, _ := slices.BinarySearch(gangs, id)
	m.byJob[gang.Job] = slices.Insert(gangs, at, id)
	switch {
	case e.ask.Held || e.ask.Stop:
	case e.until > 0:
		heap.Push(&m.asleep, sleeper{e.until, e})
	default:
		m.activate(e)
	}
}

// putSpread notes where a gang's tasks are that others are kept away from.
func (m *memory) putSpread(gang string, now []spread) {
	for _, old := range m.spread[gang] {
		m.view.Count(old.job, old.by, old.node, -1)
	}
	for _, one := range now {
		m.view.Count(one.job, one.by, one.node, 1)
	}
	if m.spread[gang] = now; len(now) == 0 {
		delete(m.spread, gang)
	}
}

// drop forgets a gang that was placed or is gone.
func (m *memory) drop(id string) {
	e := m.waiting[id]
	if e == nil {
		return
	}
	delete(m.waiting, id)
	m.shapes.Release(e.ask)
	m.deactivate(e)
	e.until = 0 // whatever of it is asleep counts for nothing
	job := jobOf(id)
	gangs := m.byJob[job]
	if at, found := slices.BinarySearch(gangs, id); found {
		gangs = slices.Delete(gangs, at, at+1)
	}
	if m.byJob[job] = gangs; len(gangs) == 0 {
		delete(m.byJob, job)
	}
}

// pause keeps an active gang from being planned for a while.
func (m *memory) pause(id string, until int64) {
	e := m.waiting[id]
	if e == nil || !e.active {
		return
	}
	m.deactivate(e)
	e.until = until
	heap.Push(&m.asleep, sleeper{until, e})
}

func byAsk(a, b *entry) int { return scheduler.Before(a.ask, b.ask) }

func (m *memory) activate(e *entry) {
	at, _ := slices.BinarySearchFunc(m.active, e, byAsk)
	m.active = slices.Insert(m.active, at, e)
	m.fresh[e], e.active = true, true
}

func (m *memory) deactivate(e *entry) {
	if !e.active {
		return
	}
	if at, found := slices.BinarySearchFunc(m.active, e, byAsk); found {
		m.active = slices.Delete(m.active, at, at+1)
	}
	delete(m.fresh, e)
	e.active = false
}

// candidates are the gangs worth trying now, in their order.
func (m *memory) candidates(now int64) []scheduler.Ask {
	for at, any := m.next(); any && at <= now; at, any = m.next() {
		e := heap.Pop(&m.asleep).(sleeper).entry
		e.until = 0
		m.activate(e)
	}
	var asks []scheduler.Ask
	if m.gained {
		for _, e := range m.active {
			asks = append(asks, e.ask)
		}
	} else {
		for e := range m.fresh {
			asks = append(asks, e.ask)
		}
		slices.SortFunc(asks, scheduler.Before)
	}
	clear(m.fresh)
	m.gained = false
	return asks
}

// pending reports whether there may be something to plan without a further event.
func (m *memory) pending() bool { return len(m.fresh) > 0 || m.gained && len(m.active) > 0 }

// next is when the first sleeper wakes.
func (m *memory) next() (at int64, any bool) {
	for len(m.asleep) > 0 {
		first := m.asleep[0]
		if first.entry.until == first.at {
			return first.at, true
		}
		heap.Pop(&m.asleep)
	}
	return 0, false
}

func (m *memory) gangsOf(job string) []string { return m.byJob[job] }

type sleeper struct {
	at    int64
	entry *entry
}

// sleepers is a heap, the earliest first.
type sleepers []sleeper

func (s sleepers) Len() int           { return len(s) }
func (s sleepers) Less(i, j int) bool { return s[i].at < s[j].at }
func (s sleepers) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *sleepers) Push(x any)        { *s = append(*s, x.(sleeper)) }
func (s *sleepers) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
