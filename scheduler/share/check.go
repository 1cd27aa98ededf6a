package share

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// Check reports every mistake in a whole set of queues: in each of them, in the tree they make, and in
// what they guarantee together.
func Check(queues []cluster.Queue) cluster.Problems {
	var p cluster.Problems
	if len(queues) > cluster.MaxQueues {
		p.Add("", "%d queues: at most %d", len(queues), cluster.MaxQueues)
		return p
	}
	sorted := slices.SortedFunc(slices.Values(queues), func(a, b cluster.Queue) int { return cmp.Compare(a.Name, b.Name) })
	byName := make(map[string]cluster.Queue, len(sorted))
	for _, q := range sorted {
		field := fieldOf(q)
		if _, twice := byName[q.Name]; twice {
			p.Add(field, "it is there twice")
		}
		byName[q.Name] = q
		p.Under(field, q.Validate())
	}
	if len(p) > 0 {
		return p
	}
	for _, q := range sorted {
		checkPlace(&p, q, byName)
	}
	if len(p) == 0 {
		checkGuarantees(&p, sorted, byName)
	}
	return p
}

func fieldOf(q cluster.Queue) string { return fmt.Sprintf("queue %q", cluster.Clip(q.Name)) }

// checkPlace follows a queue's parents up to the root.
func checkPlace(p *cluster.Problems, q cluster.Queue, byName map[string]cluster.Queue) {
	if q.Parent == cluster.DefaultQueue {
		p.Add(fieldOf(q)+".parent", "%q takes the jobs that name no queue: it cannot have others below it", q.Parent)
		return
	}
	above, depth := q, 1
	for above.Parent != "" {
		parent, known := byName[above.Parent]
		depth++
		switch {
		case !known && above.Name == q.Name:
			p.Add(fieldOf(q)+".parent", "%q does not exist", cluster.Clip(above.Parent))
			return
		case !known:
			return // told for the one above
		case parent.Name == q.Name:
			p.Add(fieldOf(q)+".parent", "it would be below itself")
			return
		case depth > cluster.MaxQueueDepth:
			p.Add(fieldOf(q)+".parent", "it is more than %d queues deep, or below a circle: put it higher", cluster.MaxQueueDepth)
			return
		}
		above = parent
	}
}

// checkGuarantees holds what children are guaranteed against what their parent is.
func checkGuarantees(p *cluster.Problems, queues []cluster.Queue, byName map[string]cluster.Queue) {
	type claim struct{ parent, resource string }
	sums := map[claim]int64{}
	for _, q := range queues {
		if q.Parent == "" {
			continue
		}
		for resource, amount := range guaranteed(q) { // in any order: sums do not depend on it
			c := claim{q.Parent, resource}
			sums[c] = sum(sums[c], amount)
		}
	}
	claims := make([]claim, 0, len(sums))
	for c := range sums {
		claims = append(claims, c)
	}
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.parent, b.parent), cmp.Compare(a.resource, b.resource))
	})
	for _, c := range claims {
		if most := guaranteed(byName[c.parent])[c.resource]; sums[c] > most {
			p.Add(fieldOf(byName[c.parent])+".guarantee."+c.resource, "those below it are guaranteed %s together, it has %s itself: raise it or lower theirs",
				cluster.FormatAmount(c.resource, sums[c]), cluster.FormatAmount(c.resource, most))
		}
	}
}

// guaranteed is a queue's guarantee by resource; GPUs of models are GPUs too.
func guaranteed(q cluster.Queue) map[string]int64 {
	by := make(map[string]int64, len(q.Guarantee)+1)
	models := int64(0)
	for _, limit := range q.Guarantee {
		by[limit.Resource] = limit.Amount
		if limit.Resource != cluster.ResourceCores && limit.Resource != cluster.ResourceMemory && limit.Resource != cluster.ResourceGPUs {
			models = sum(models, limit.Amount)
		}
	}
	if models > by[cluster.ResourceGPUs] {
		by[cluster.ResourceGPUs] = models
	}
	return by
}
