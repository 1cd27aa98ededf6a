package share

import "github.com/clary-ml/clary/cluster"

// Right is why a queue may evict what another runs.
type Right string

// The rights.
const (
	RightNone    Right = ""        // it may not
	RightReclaim Right = "reclaim" // it has not what it is guaranteed, and the other borrows
	RightFair    Right = "fair"    // the other has more than its share, and would still have no less than this one then has
)

// MayEvict says by which right a gang of one queue may take the place of a gang of another, when the
// one gains an amount and the other loses one. Shares are compared as they would be after the move, at
// the level where the two queues' ways to the root part: the preemptor must not end above the one that it takes
// from (Kueue's rule S2-a). So the least share that an eviction in a circle would reach could never be undercut again,
// and there is no circle, not even when others take what of the room is left over; with the weaker rule that both
// end below what the other had (S2-b) a small gang evicts a large one, whose fellows fill the rest and are evicted
// for it in turn. Whether the queues' own rules allow it (cluster.Preempt) is the caller's question.
func (t *Tree) MayEvict(preemptor, victim string, gain, loss cluster.Amount) Right {
	p, v := t.fork(preemptor, victim)
	if p < 0 || v < 0 {
		return RightNone
	}
	var room, room2 buffer
	x, y := t.vec(gain, &room), t.vec(loss, &room2)
	reclaims := t.withinUpTo(t.byName[preemptor], p, x)
	byModel := t.zero() // what it reclaims of models that its guarantee names
	for r := firstModel; reclaims && r < len(x); r++ {
		if t.leaf(preemptor).named[r] {
			byModel[r] = x[r]
		}
	}
	var room3 buffer
	lacks := t.lacks(p, append(room3[:0], x...))
	for i := t.byName[victim]; ; i = t.nodes[i].parent {
		if t.covered(&t.nodes[i], lacks, y, byModel) {
			return RightNone // it is within its guarantee, there or on the way up
		}
		if i == v {
			break
		}
	}
	if reclaims {
		return RightReclaim
	}
	before := t.shareOf(&t.nodes[v], make(vec, len(x)), 1)
	after := t.shareOf(&t.nodes[v], y, -1)
	if gained := t.shareOf(&t.nodes[p], x, 1); gained.Beyond <= after.Beyond && after.Beyond < before.Beyond {
		return RightFair
	}
	return RightNone
}

// fork are the two nodes, below the lowest one that both queues are under, that lead to them; -1 when
// they are one queue or not there.
func (t *Tree) fork(a, b string) (int32, int32) {
	i, known := t.byName[a]
	j, alsoKnown := t.byName[b]
	if !known || !alsoKnown || i == j {
		return -1, -1
	}
	for up := i; up > 0; up = t.nodes[up].parent {
		parent := t.nodes[up].parent
		for down := j; down > 0; down = t.nodes[down].parent {
			if t.nodes[down].parent == parent {
				if up == down {
					return -1, -1 // one is below the other
				}
				return up, down
			}
		}
	}
	return -1, -1
}

// lacks leaves of an amount what a queue lacks of it: that of which there is not as much left, in the cluster or within a limit above the node.
// If there is enough of everything, only nowhere together, it is what the queue would have the largest part of. What there is
// enough of is no reason to take anything from anybody: Kueue looks at what needs preemption in the same way.
func (t *Tree) lacks(i int32, x vec) vec {
	any, most := false, uint64(0)
	for r := range x {
		any = any || t.scarce(i, r, x[r])
		if t.caps[r] > 0 {
			most = max(most, part(x[r], t.caps[r]))
		}
	}
	for r := range x {
		if any && !t.scarce(i, r, x[r]) || !any && t.caps[r] > 0 && part(x[r], t.caps[r]) < most {
			x[r] = 0
		}
	}
	return x
}

// scarce reports whether so much of a resource is not left in the cluster, or within a limit above a node.
func (t *Tree) scarce(i int32, r int, amount int64) bool {
	if amount <= 0 {
		return false
	}
	if t.nodes[0].used[r]+amount > t.caps[r] {
		return true
	}
	for up := t.nodes[i].parent; up > 0; up = t.nodes[up].parent {
		if t.nodes[up].used[r]+amount > t.nodes[up].most[r] {
			return true
		}
	}
	return false
}

// covered reports whether what a node holds, and withholds below, is within its guarantee, in all that the
// guarantee names of what it would lose to one that gains that, too: who holds a core too many loses no GPUs that are
// guaranteed to it to one that takes no cores. A guarantee of GPUs of any model does not cover those of
// one that another needs to have what is guaranteed to it by model.
func (t *Tree) covered(n *node, gain, loss, byModel vec) bool {
	covered := false
	for r := range loss {
		if loss[r] <= 0 {
			continue
		}
		if !n.named[r] {
			if byModel[r] > 0 {
				return false
			}
			continue
		}
		if n.load[r] <= n.guarantee[r] {
			covered = true
		} else if gain[r] > 0 || r >= firstModel && gain[gpus] > 0 { // of which models it gains may not be known yet
			return false
		}
	}
	return covered
}

// withinUpTo reports whether the amount is within the guarantees of a node and of all above it up to
// one: what a queue lacks because its own sibling borrows is taken from that sibling first.
func (t *Tree) withinUpTo(i, top int32, x vec) bool {
	var room buffer
	up := append(room[:0], x...)
	for ; ; i = t.nodes[i].parent {
		n := &t.nodes[i]
		named := false
		for r := range up {
			if x[r] <= 0 || !n.named[r] {
				continue
			}
			named = true
			after := n.load[r] + up[r]
			if up[r] > 0 && after > n.guarantee[r] {
				return false
			}
			up[r] = max(after, n.withheld[r]) - max(n.load[r], n.withheld[r])
		}
		if !named {
			return false
		}
		if i == top {
			return true
		}
	}
}

// Guaranteed reports whether a queue's guarantee covers the amount on top of what it holds, so that it
// may reclaim what it lacks of it.
func (t *Tree) Guaranteed(queue string, amount cluster.Amount) bool {
	n := t.leaf(queue)
	if n == nil {
		return false
	}
	var room buffer
	return t.within(n, t.vec(amount, &room))
}

// Beyond is what a queue holds beyond its guarantee: what it can be made to give back.
func (t *Tree) Beyond(queue string) cluster.Amount {
	n := t.leaf(queue)
	if n == nil {
		return cluster.Amount{}
	}
	beyond := t.zero()
	for r := range beyond {
		beyond[r] = max(0, n.used[r]-n.guarantee[r])
	}
	return t.amount(beyond)
}
