package share

import (
	"reflect"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Edit is a change of the tree of queues.
type Edit struct {
	Put     []cluster.Queue // a revision that is not 0 must be the queue's
	Delete  []string
	Replace bool // delete all that are not put, but for the default queue
	Create  bool // none of those put may exist
}

// Change is what an edit does to one queue. A queue that is made has no name before, one that is
// deleted none after.
type Change struct{ Before, After cluster.Queue }

// Of says what the edit changes in the queues that there are: parents before those below them, and what is
// deleted last, from below. What would not change is left out. The tree that it leaves is checked.
func (e Edit) Of(queues []cluster.Queue) ([]Change, error) {
	now := make(map[string]cluster.Queue, len(queues))
	for _, q := range queues {
		now[q.Name] = q
	}
	next := make(map[string]cluster.Queue, len(queues))
	if !e.Replace {
		for name, q := range now {
			next[name] = q
		}
	} else if q, exists := now[cluster.DefaultQueue]; exists {
		next[q.Name] = q
	}
	put := map[string]bool{}
	for _, q := range e.Put {
		old, exists := now[q.Name]
		switch {
		case put[q.Name]:
			return nil, fault.New(fault.Invalid, "queue %q: it is there twice", cluster.Clip(q.Name))
		case exists && e.Create:
			return nil, fault.New(fault.Conflict, "queue %q exists already: change it with clary queue set %s", q.Name, q.Name)
		case q.Revision != 0 && q.Revision != old.Revision:
			return nil, fault.New(fault.Conflict, "queue %q is at revision %d, not %d: read it again", cluster.Clip(q.Name), old.Revision, q.Revision)
		}
		put[q.Name] = true
		q.Revision = old.Revision
		next[q.Name] = q
	}
	for _, name := range e.Delete {
		switch _, exists := next[name]; {
		case !exists:
			return nil, fault.New(fault.NotFound, "there is no queue %q: see clary queue list", cluster.Clip(name))
		case put[name]:
			return nil, fault.New(fault.Invalid, "queue %q: it is put and deleted", cluster.Clip(name))
		case name == cluster.DefaultQueue:
			return nil, fault.New(fault.Invalid, "queue %q: jobs that name no queue need it: it cannot be deleted", name)
		}
		delete(next, name)
	}
	return changes(now, next)
}

func changes(now, next map[string]cluster.Queue) ([]Change, error) {
	left := make([]cluster.Queue, 0, len(next))
	for _, q := range next {
		left = append(left, q)
	}
	tree := New()
	if err := tree.Set(left); err != nil {
		return nil, err
	}
	var made []Change
	for _, q := range tree.Queues() {
		if old, exists := now[q.Name]; !exists || !reflect.DeepEqual(old, q) {
			made = append(made, Change{old, q})
		}
	}
	was := New()
	gone := make([]cluster.Queue, 0, len(now))
	for _, q := range now {
		gone = append(gone, q)
	}
	if err := was.Set(gone); err != nil {
		return nil, err
	}
	for _, q := range slices.Backward(was.Queues()) {
		if _, stays := next[q.Name]; !stays {
			made = append(made, Change{Before: q})
		}
	}
	return made, nil
}

// View is what people are shown of a queue.
func (t *Tree) View(name string, waiting int64) cluster.QueueView {
	n := t.leaf(name)
	if n == nil {
		return cluster.QueueView{}
	}
	view := cluster.QueueView{
		Queue: n.queue, Used: t.amount(n.used), Beyond: t.Beyond(name), Running: n.running, Waiting: waiting,
		TakesJobs: len(n.children) == 0, Share: t.Share(name).Fraction(),
	}
	usage := t.Usage(name)
	for _, o := range usage.Owners {
		view.Owners = append(view.Owners, cluster.OwnerUsage{Owner: o.Name, Used: o.Used, Running: o.Running})
	}
	if n.half > 0 {
		view.Mean = t.amount(n.mean)
	}
	return view
}
