package room

import (
	"maps"
	"slices"
	"sync/atomic"

	"github.com/clary-ml/clary/cluster"
)

// Tenant is a gang that runs, as affinities of others see it.
type Tenant struct {
	Job    string
	Labels map[string]string    // of its job
	At     []cluster.Allocation // of its tasks
}

// tenants are all of them. Clones share them; whoever changes them copies them first.
type tenants struct {
	shared atomic.Bool
	byID   map[string]*Tenant
	byJob  map[string][]string // IDs
}

func newTenants() *tenants { return &tenants{byID: map[string]*Tenant{}, byJob: map[string][]string{}} }

// Vacate gives back the room of a whole gang, as if it had ended, and counts it no more for who is to be near or away from
// it. It can be undone.
func (m *Map) Vacate(id string, at []cluster.Allocation) {
	m.Give(at)
	if m.tenants.byID[id] == nil || m.away[id] {
		return
	}
	if m.away == nil {
		m.away = map[string]bool{}
	}
	m.away[id] = true
	m.undo.steps = append(m.undo.steps, step{kind: tenantLeft})
	m.undo.left = append(m.undo.left, id)
}

// mutableTenants are the tenants, not shared with a clone.
func (m *Map) mutableTenants() *tenants {
	if t := m.tenants; t.shared.Load() {
		m.tenants = &tenants{byID: maps.Clone(t.byID), byJob: maps.Clone(t.byJob)}
	}
	return m.tenants
}

// House notes where a gang's tasks run, in place of what was known of it. It cannot be undone. It reports whether
// anybody has ever asked to be near or away from others: whoever waits may fit now who did not before.
func (m *Map) House(id string, t Tenant) (gained bool) {
	m.Leave(id)
	all := m.mutableTenants()
	all.byID[id] = &t
	all.byJob[t.Job] = append(slices.Clip(all.byJob[t.Job]), id)
	return m.social
}

// Leave forgets where a gang's tasks ran.
func (m *Map) Leave(id string) {
	t := m.tenants.byID[id]
	if t == nil {
		return
	}
	all := m.mutableTenants()
	delete(m.away, id)
	delete(all.byID, id)
	left := slices.DeleteFunc(slices.Clone(all.byJob[t.Job]), func(other string) bool { return other == id })
	if all.byJob[t.Job] = left; len(left) == 0 {
		delete(all.byJob, t.Job)
	}
}

// tasksOf is how many tasks each node has of those that an affinity names.
func (m *Map) tasksOf(a cluster.Affinity) []int32 {
	tasks := make([]int32, len(m.nodes))
	add := func(t *Tenant) {
		for i := range t.At {
			if place, known := m.fixed.index[t.At[i].Node]; known {
				tasks[place]++
			}
		}
	}
	if a.Job != "" {
		for _, id := range m.tenants.byJob[a.Job] {
			if !m.away[id] {
				add(m.tenants.byID[id])
			}
		}
		return tasks
	}
	for id, t := range m.tenants.byID { // a sum: the order does not matter
		if !m.away[id] && a.Matches(t.Job, t.Labels) {
			add(t)
		}
	}
	return tasks
}

// bar applies one affinity: required ones rule nodes out, others add points.
func (l *look) bar(a *affinity) {
	m := l.m
	m.social = true
	present, any := make([]int32, len(m.nodes)+len(m.fixed.domains)+2), false // by domain
	for place, count := range m.tasksOf(a.Affinity) {
		present[m.domainOf(int32(place), a.Over)] += count
		any = any || count > 0
	}
	if a.own && a.Weight == 0 {
		l.own = append(l.own, ownRule{a, present, any})
		return
	}
	if a.Weight == 0 && l.barred == nil {
		l.barred = make([]bool, len(m.nodes))
	}
	for place := range m.nodes {
		domain := m.domainOf(int32(place), a.Over)
		there := domain != 0 && present[domain] > 0
		switch {
		case a.Weight > 0 && there && a.Anti:
			l.points[place] -= a.Weight
		case a.Weight > 0 && there:
			l.points[place] += a.Weight
		case a.Weight == 0 && there == a.Anti:
			l.barred[place] = true
		}
	}
}

// ownRule is a required affinity that means the gang's own tasks too: what it rules out changes with each of them.
type ownRule struct {
	a       *affinity
	present []int32 // tasks of the job by domain, without those of this gang
	any     bool
}

// ruledOut reports whether an affinity that is required keeps the next task off a node.
func (l *look) ruledOut(place int32) bool {
	if l.barred != nil && l.barred[place] {
		return true
	}
	for i := range l.own {
		o := &l.own[i]
		domain := l.m.domainOf(place, o.a.Over)
		there := domain != 0 && (o.present[domain] > 0 || l.m.placedIn(domain, o.a.Over))
		alone := !o.any && len(l.m.placed) == 0 // somebody has to be the first
		if o.a.Anti && there || !o.a.Anti && !there && !alone {
			return true
		}
	}
	return false
}

// placedIn reports whether a task of the gang that is being placed is in a domain.
func (m *Map) placedIn(domain int32, over cluster.Level) bool {
	for _, place := range m.placed {
		if m.domainOf(place, over) == domain {
			return true
		}
	}
	return false
}
