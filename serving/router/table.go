package router

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/clary-ml/clary/serving/route"
)

// table is one route.Table, made ready: it does not change, but what it points to lives on.
type table struct {
	of     route.Table
	byName map[string]*entry
	guests *guests
}

// entry is an endpoint as one table has it.
type entry struct {
	*endpoint
	of      *route.Endpoint
	limits  route.Limits
	fleets  []*fleet
	weights []float64
	hashes  []uint64 // of what the fleets are called
}

// endpoint is what outlives tables of an endpoint.
type endpoint struct {
	name    string
	waiting atomic.Int64 // in the queues of its fleets
	rate    bucket
	tokens  sync.Map     // token ID → *bucket
	budget  atomic.Int64 // retries that are left until the next judgement
}

// fleetKey names a fleet for ever.
type fleetKey struct {
	endpoint, variant string
	generation        int64
}

func (t *table) fleets() map[fleetKey]*fleet {
	all := map[fleetKey]*fleet{}
	for _, e := range t.byName {
		for i, f := range e.fleets {
			all[fleetKey{e.name, e.of.Fleets[i].Variant, e.of.Fleets[i].Generation}] = f
		}
	}
	return all
}

// SetTable puts another table in force. What is under way goes on; what is known of replicas that
// both tables have is kept. A table with mistakes is refused whole, and the old one stays.
func (r *Router) SetTable(of route.Table) error {
	if err := of.Validate().Err(); err != nil {
		return err
	}
	of = clone(of)
	r.setting.Lock()
	defer r.setting.Unlock()
	old := r.table.Load()
	next := &table{of: of, byName: make(map[string]*entry, len(of.Endpoints)), guests: newGuests(of.Tokens)}
	known := old.fleets()
	for i := range of.Endpoints {
		e := r.entry(&of.Endpoints[i], old.byName[of.Endpoints[i].Name], known)
		next.byName[e.name] = e
	}
	r.table.Store(next)
	kept := next.fleets()
	for key, f := range known {
		if kept[key] != f {
			f.end() // first, so that who finds no members knows why
			r.update(f, &route.Fleet{Variant: key.variant, Generation: key.generation})
			r.retire(key, f)
		}
	}
	for _, f := range kept {
		f.kick()
	}
	return nil
}

// clone keeps what the caller does with its table from being seen here.
func clone(t route.Table) route.Table {
	t.Tokens = slices.Clone(t.Tokens)
	t.Endpoints = slices.Clone(t.Endpoints)
	for i := range t.Endpoints {
		e := &t.Endpoints[i]
		e.Fleets = slices.Clone(e.Fleets)
		for j := range e.Fleets {
			e.Fleets[j].Replicas = slices.Clone(e.Fleets[j].Replicas)
		}
	}
	return t
}

func (r *Router) entry(of *route.Endpoint, old *entry, known map[fleetKey]*fleet) *entry {
	e := &entry{of: of, limits: limits(of.Limits)}
	if old != nil {
		e.endpoint = old.endpoint
	} else {
		e.endpoint = &endpoint{name: of.Name}
		e.budget.Store(leastBudget)
	}
	for i := range of.Fleets {
		fleetOf := &of.Fleets[i]
		key := fleetKey{of.Name, fleetOf.Variant, fleetOf.Generation}
		f := known[key]
		if f == nil {
			f = r.revive(key, e.endpoint)
		}
		r.update(f, fleetOf)
		e.fleets = append(e.fleets, f)
		e.weights = append(e.weights, fleetOf.Weight)
		e.hashes = append(e.hashes, hashOf(fleetOf.Variant)^mix(uint64(fleetOf.Generation)))
	}
	return e
}

// update gives a fleet the replicas that a table has for it.
func (r *Router) update(f *fleet, of *route.Fleet) {
	before := make(map[string]*replica, len(f.all))
	for _, m := range f.all {
		before[m.ID] = m
	}
	all, members := make([]*replica, 0, len(of.Replicas)), make([]*replica, 0, len(of.Replicas))
	for _, replicaOf := range of.Replicas {
		m := before[replicaOf.ID]
		if m == nil || m.Address != replicaOf.Address || m.Gateway != replicaOf.Gateway {
			m = newReplica(replicaOf, r.group.Loops())
		} else {
			delete(before, m.ID)
		}
		all = append(all, m)
		if !replicaOf.Draining {
			members = append(members, m)
		}
	}
	f.setMembers(all, members, of)
	for _, m := range before {
		m.gone.Store(true)
		m.prune(r.group.Now() + 1)
	}
}

const maxRetired = 256

// retire keeps the counts of a fleet that no table has now: it may come back, and they never fall.
func (r *Router) retire(key fleetKey, f *fleet) {
	for other := range r.retired {
		if len(r.retired) < maxRetired {
			break
		}
		delete(r.retired, other)
	}
	r.retired[key] = f
}

func (r *Router) revive(key fleetKey, of *endpoint) *fleet {
	f := r.retired[key]
	delete(r.retired, key)
	if f == nil || f.endpoint != of {
		f = &fleet{endpoint: of, shards: make([]shard, r.group.Loops())}
		f.members.Store(&[]*replica{})
	}
	f.mu.Lock()
	f.ended = false
	f.mu.Unlock()
	return f
}
