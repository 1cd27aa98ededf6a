package share

import (
	"math/bits"

	"github.com/clary-ml/clary/cluster"
)

// Share is how much of the cluster a queue has: its dominant share over its weight, the less the
// sooner it is served. Beyond is what it holds beyond its guarantee, and decides; All breaks ties.
type Share struct {
	Beyond, All uint64 // parts of Whole, of a queue of weight 1
}

// Whole is the share of a queue of weight 1 that has all of some resource.
const Whole = uint64(1) << 40

// Less reports whether a share is served sooner than another.
func (s Share) Less(other Share) bool {
	return s.Beyond < other.Beyond || s.Beyond == other.Beyond && s.All < other.All
}

// Fraction is what part of the cluster the queue holds beyond its guarantee, weighted: 1 is all of some
// resource at weight 1. It is for people; decisions compare Shares.
func (s Share) Fraction() float64 { return float64(s.Beyond) / float64(Whole) }

// key orders siblings in the tournament: those whose guarantee covers their next job go first.
type key struct {
	beyond bool
	Share
}

func (k key) less(other key) bool {
	if k.beyond != other.beyond {
		return other.beyond
	}
	return k.Less(other.Share)
}

// Advance brings what is remembered of the past to an instant. Within a round it is called once, at
// the beginning.
func (t *Tree) Advance(now int64) {
	if now <= t.now {
		return
	}
	t.now = now
	any := false
	for i := 1; i < len(t.nodes); i++ {
		if n := &t.nodes[i]; len(n.children) == 0 {
			t.remember(int32(i))
			any = any || n.half > 0
		}
	}
	if any {
		t.rekey()
	}
}

// SetDemand says that a queue has work waiting, and what the job asks for that it would place first.
// Only queues with a demand take part in the division.
func (t *Tree) SetDemand(queue string, head cluster.Amount) {
	t.learn(head)
	i, known := t.byName[queue]
	if !known || len(t.nodes[i].children) > 0 {
		return
	}
	n := &t.nodes[i]
	var room buffer
	v := t.vec(head, &room)
	if n.head == nil {
		n.head = make(vec, len(v))
	}
	copy(n.head, v)
	t.touch(i)
}

// ClearDemand says that a queue has nothing (more) that could be placed.
func (t *Tree) ClearDemand(queue string) {
	i, known := t.byName[queue]
	if !known || t.nodes[i].head == nil || len(t.nodes[i].children) > 0 {
		return
	}
	t.nodes[i].head = nil
	t.touch(i)
}

// Next is the queue that is served next: from the root down, of the siblings those whose guarantee covers
// their next job, then the one that would have the least share after it; of equals the first by name. It
// is false when nobody has a demand.
func (t *Tree) Next() (queue string, ok bool) {
	i := int32(0)
	for len(t.nodes[i].children) > 0 {
		if len(t.nodes[i].heap) == 0 {
			return "", false
		}
		i = t.nodes[i].heap[0]
	}
	return t.nodes[i].name, i > 0
}

// Share is a queue's share of what it and its siblings divide, as of now.
func (t *Tree) Share(queue string) Share { return t.ShareAfter(queue, cluster.Amount{}, 1) }

// ShareAfter is the share that a queue would have with the amount more, or with sign -1 less.
func (t *Tree) ShareAfter(queue string, amount cluster.Amount, sign int64) Share {
	n := t.leaf(queue)
	if n == nil {
		return Share{}
	}
	var room buffer
	return t.shareOf(n, t.vec(amount, &room), sign)
}

// touch puts a leaf and all above it into their places in the tournament.
func (t *Tree) touch(i int32) {
	for ; i > 0; i = t.nodes[i].parent {
		n := &t.nodes[i]
		if len(n.children) > 0 {
			n.head = nil
			if len(n.heap) > 0 {
				n.head = t.nodes[n.heap[0]].head
			}
		}
		parent := &t.nodes[n.parent]
		if n.head == nil {
			t.remove(parent, i)
			continue
		}
		n.key = t.keyOf(n)
		t.fix(parent, i)
	}
}

// rekey rebuilds the whole tournament.
func (t *Tree) rekey() { t.rekeyBelow(0) }

func (t *Tree) rekeyBelow(i int32) {
	n := &t.nodes[i]
	if len(n.children) > 0 {
		n.heap, n.head = n.heap[:0], nil
		for _, child := range n.children {
			t.rekeyBelow(child)
			c := &t.nodes[child]
			if c.pos = -1; c.head != nil {
				c.key = t.keyOf(c)
				t.fix(n, child)
			}
		}
		if len(n.heap) > 0 {
			n.head = t.nodes[n.heap[0]].head
		}
	}
}

func (t *Tree) keyOf(n *node) key { return key{!t.within(n, n.head), t.shareOf(n, n.head, 1)} }

// shareOf is a node's share with the amount more or less.
func (t *Tree) shareOf(n *node, x vec, sign int64) Share {
	var k Share
	overGPUs := n.used[gpus] + sign*x[gpus] - n.guarantee[gpus]
	for r := range x {
		if t.caps[r] <= 0 {
			continue // nobody can have it
		}
		held := n.used[r]
		if n.half > 0 {
			held = held/2 + n.mean[r]/2
		}
		held += sign * x[r]
		k.All = max(k.All, part(held, t.caps[r]))
		beyond := held - n.guarantee[r]
		if r >= firstModel && n.named[gpus] {
			beyond = min(beyond, overGPUs) // a guarantee of any GPUs covers these
		}
		k.Beyond = max(k.Beyond, part(beyond, t.caps[r]))
	}
	weight := uint64(max(n.queue.Weight, 1))
	k.All /= weight
	k.Beyond /= weight
	return k
}

// part is amount/whole in parts of Whole; far beyond the whole it stays the same.
func part(amount, whole int64) uint64 {
	if amount <= 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(amount), Whole)
	if high >= uint64(whole) {
		return 1 << 60
	}
	quotient, _ := bits.Div64(high, low, uint64(whole))
	return min(quotient, 1<<60)
}

// within reports whether the queue's guarantee covers the amount on top of what it holds: it names
// something of what is asked, and of all it names there is enough.
func (t *Tree) within(n *node, x vec) bool {
	covered := false
	for r := range x {
		if x[r] <= 0 || !n.named[r] {
			continue
		}
		if n.used[r]+x[r] > n.guarantee[r] {
			return false
		}
		covered = true
	}
	return covered
}

// The heap of the children that take part. It is written out, since container/heap would
// allocate for every call.

func (t *Tree) before(a, b int32) bool {
	x, y := t.nodes[a].key, t.nodes[b].key
	if x != y {
		return x.less(y)
	}
	return a < b // nodes are in the order of their names
}

// fix puts a child into the heap, or to its place in it.
func (t *Tree) fix(n *node, child int32) {
	c := &t.nodes[child]
	if c.pos < 0 {
		c.pos = int32(len(n.heap))
		n.heap = append(n.heap, child)
	}
	t.down(n, t.up(n, c.pos))
}

func (t *Tree) remove(n *node, child int32) {
	at := t.nodes[child].pos
	if at < 0 {
		return
	}
	last := int32(len(n.heap) - 1)
	t.swap(n, at, last)
	n.heap = n.heap[:last]
	t.nodes[child].pos = -1
	if at < last {
		t.down(n, t.up(n, at))
	}
}

func (t *Tree) swap(n *node, a, b int32) {
	n.heap[a], n.heap[b] = n.heap[b], n.heap[a]
	t.nodes[n.heap[a]].pos, t.nodes[n.heap[b]].pos = a, b
}

func (t *Tree) up(n *node, at int32) int32 {
	for at > 0 {
		parent := (at - 1) / 2
		if !t.before(n.heap[at], n.heap[parent]) {
			break
		}
		t.swap(n, at, parent)
		at = parent
	}
	return at
}

func (t *Tree) down(n *node, at int32) {
	for {
		least := at
		for _, child := range [2]int32{2*at + 1, 2*at + 2} {
			if int(child) < len(n.heap) && t.before(n.heap[child], n.heap[least]) {
				least = child
			}
		}
		if least == at {
			return
		}
		t.swap(n, at, least)
		at = least
	}
}
