package room

import (
	"maps"

	"github.com/clary-ml/clary/cluster"
)

// Tenant is a gang that runs, as affinities of others see it.
type Tenant struct {
	Job    string
	Labels map[string]string // of its job
	Nodes  map[string]int32  // tasks by node
}

type tenants struct {
	byID  map[string]*Tenant
	byJob map[string]map[string]bool
}

func (t *tenants) clone() tenants {
	c := tenants{byID: maps.Clone(t.byID), byJob: make(map[string]map[string]bool, len(t.byJob))}
	for job, ids := range t.byJob {
		c.byJob[job] = maps.Clone(ids)
	}
	return c
}

// House notes where a gang's tasks run, in place of what was known of it. It cannot be undone. It is a gain: whoever
// wants to be near it may fit now.
func (m *Map) House(id string, t Tenant) {
	m.Leave(id)
	m.tenants.byID[id] = &t
	if m.tenants.byJob[t.Job] == nil {
		m.tenants.byJob[t.Job] = map[string]bool{}
	}
	m.tenants.byJob[t.Job][id] = true
	m.gain()
}

// Leave forgets where a gang's tasks ran.
func (m *Map) Leave(id string) {
	t := m.tenants.byID[id]
	if t == nil {
		return
	}
	delete(m.tenants.byID, id)
	delete(m.tenants.byJob[t.Job], id)
	if len(m.tenants.byJob[t.Job]) == 0 {
		delete(m.tenants.byJob, t.Job)
	}
	m.gain()
}

// tasksOf is how many tasks each node has of those that an affinity names.
func (m *Map) tasksOf(a cluster.Affinity) []int32 {
	tasks := make([]int32, len(m.nodes))
	add := func(t *Tenant) {
		for node, count := range t.Nodes { // a sum: the order does not matter
			if place, known := m.fixed.index[node]; known {
				tasks[place] += count
			}
		}
	}
	if a.Job != "" {
		for id := range m.tenants.byJob[a.Job] {
			add(m.tenants.byID[id])
		}
		return tasks
	}
	for _, t := range m.tenants.byID {
		if a.Matches(t.Job, t.Labels) {
			add(t)
		}
	}
	return tasks
}

// bar applies one affinity: required ones rule nodes out, others add points.
func (l *look) bar(a *affinity) {
	m := l.m
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
