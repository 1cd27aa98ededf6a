package fgd

import (
	"cmp"
	"slices"
)

// node is a machine while pods arrive.
type node struct {
	cpu, memory int64
	free        []int64 // of each GPU, in thousandths
	total       int64   // the sum of free
	model       string
	held        []int // kinds of GPU pods that are on it: 0 for a share, else how many GPUs
}

// class is what equal pods have in common, and what every node scores for it.
type class struct {
	cpu, memory, milli int64
	gpus               int
	spec               string

	admitted []bool  // by node
	scores   []int64 // by node; misfit where it does not fit
	seen     int     // how much of the changes the scores know
}

// misfit is the score of a node that has no room.
const misfit = -1 << 62

// shared reports whether the class takes part of one GPU.
func (c *class) shared() bool { return c.gpus == 1 && c.milli < Milli }

// policy is how nodes and devices are chosen among those with room.
type policy struct {
	// score of a node; the highest is taken, the first of equals.
	score func(*node, *class) int64
	// device is the GPU for a share.
	device func(*node, *class) int
}

// published places pods by a published policy. Scores are kept for each class of pods; after a change, only
// the nodes that changed are scored again.
type published struct {
	nodes   []node
	policy  policy
	classes map[Pod]*class
	changes []int32 // nodes, in the order they changed
	kept    int     // scores that are kept
}

// mostScores bounds what is kept, in scores: a workload where every pod is of its own class on very
// many nodes is scored anew each time.
const mostScores = 64 << 20

func newPublished(all []Node, p policy) *published {
	c := &published{policy: p, classes: map[Pod]*class{}, nodes: make([]node, len(all))}
	for i, n := range all {
		c.nodes[i] = node{cpu: n.CPU, memory: n.Memory, model: n.Model, free: slices.Repeat([]int64{Milli}, n.GPUs), total: int64(n.GPUs) * Milli}
	}
	return c
}

// place gives a pod room, or reports that there is none.
func (c *published) place(p Pod) bool {
	cl := c.class(p)
	at := c.best(cl)
	if at < 0 {
		return false
	}
	c.nodes[at].take(cl, c.policy.device)
	c.changes = append(c.changes, int32(at))
	return true
}

func (c *published) class(p Pod) *class {
	p.Name = ""
	if cl, known := c.classes[p]; known {
		c.refresh(cl)
		return cl
	}
	cl := &class{cpu: p.CPU, memory: p.Memory, milli: p.Milli, gpus: p.GPUs, spec: p.Spec, admitted: make([]bool, len(c.nodes)), scores: make([]int64, len(c.nodes))}
	models := map[string]bool{}
	for i := range c.nodes {
		model := c.nodes[i].model
		ok, known := models[model]
		if !known {
			ok = p.GPUs == 0 || admits(p.Spec, model)
			models[model] = ok
		}
		cl.admitted[i] = ok
		c.rescore(cl, i)
	}
	cl.seen = len(c.changes)
	if c.kept += len(c.nodes); c.kept <= mostScores {
		c.classes[p] = cl
	}
	return cl
}

// refresh scores what changed since the class was last asked for.
func (c *published) refresh(cl *class) {
	if len(c.changes)-cl.seen >= len(c.nodes) {
		for i := range c.nodes {
			c.rescore(cl, i)
		}
	} else {
		for _, i := range c.changes[cl.seen:] {
			c.rescore(cl, int(i))
		}
	}
	cl.seen = len(c.changes)
}

func (c *published) rescore(cl *class, i int) {
	cl.scores[i] = misfit
	if n := &c.nodes[i]; cl.admitted[i] && n.fits(cl) {
		cl.scores[i] = c.policy.score(n, cl)
	}
}

// best is the node that a class goes to, -1 if it fits nowhere.
func (c *published) best(cl *class) int {
	best, highest := -1, int64(misfit)
	for i, score := range cl.scores {
		if score > highest {
			best, highest = i, score
		}
	}
	return best
}

func (n *node) fits(cl *class) bool {
	if n.cpu < cl.cpu || n.memory < cl.memory {
		return false
	}
	if cl.gpus == 0 {
		return true
	}
	if len(n.free) < cl.gpus || n.total < cl.milli*int64(cl.gpus) {
		return false
	}
	wanted := cl.gpus
	for _, free := range n.free {
		if free >= cl.milli {
			if wanted--; wanted == 0 {
				return true
			}
		}
	}
	return false
}

// take gives a pod of the class its room.
func (n *node) take(cl *class, device func(*node, *class) int) {
	kind := cl.gpus
	switch {
	case cl.shared(): // chosen while the node is as it was
		n.free[device(n, cl)] -= cl.milli
		kind = 0
	case cl.gpus > 0:
		for _, i := range n.tightest(cl) {
			n.free[i] -= cl.milli
		}
	}
	n.cpu -= cl.cpu
	n.memory -= cl.memory
	n.total -= cl.milli * int64(cl.gpus)
	if cl.gpus > 0 && !slices.Contains(n.held, kind) {
		n.held = append(n.held, kind)
	}
}

// tightest are the GPUs with least room that suffice for a pod, the first of equals.
func (n *node) tightest(cl *class) []int {
	fitting := make([]int, 0, len(n.free))
	for i, free := range n.free {
		if free >= cl.milli {
			fitting = append(fitting, i)
		}
	}
	slices.SortStableFunc(fitting, func(a, b int) int { return cmp.Compare(n.free[a], n.free[b]) })
	return fitting[:min(cl.gpus, len(fitting))]
}
