// Package share divides a cluster among queues: a tree with weights, guarantees, limits on borrowing
// and lending, limits on users and on running jobs, and shares of what was used before. It answers who
// goes next, what a queue may still take and which limit blocks it, and who may evict whom. It is pure:
// instants come in, the same calls give the same answers on every machine.
//
// What a queue guarantees, borrows and lends means what it does in Kueue (kueue.sigs.k8s.io, concepts
// "cluster queue" and "cohort"): what a queue does not use of its guarantee others may borrow, but for what
// it withholds. Who goes next is hierarchical weighted dominant-resource fairness (Ghodsi et al., NSDI 2011;
// Bhattacharya et al., SoCC 2013) over what is held beyond guarantees, as Kueue's fair sharing and KAI's
// over-quota division do it; the tournament over the shares that siblings would have with their next job
// is Kueue's. That usage decays with a half-life is Slurm's (multifactor priority plugin). See DESIGN.md.
package share

import (
	"cmp"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Claim is what a gang holds or would hold of a queue.
type Claim struct {
	Queue string
	Owner string
	Job   string // several gangs of one job are one running job
	Firm  bool   // nobody may preempt it
	cluster.Amount
}

// Tree is the queues with what they hold. It is not safe for concurrent use; methods that only read
// (all that return without an error and are not named after a change) may run at once.
//
// Jobs belong into queues that have none below them. A queue that is not there holds nothing, wants
// nothing and is refused by Admit.
type Tree struct {
	queues   map[string]cluster.Queue
	capacity cluster.Amount
	now      int64

	nodes   []node // the root first, the others by name
	byName  map[string]int32
	names   []string         // of resources; the first three are fixed
	model   map[string]int32 // place of a model's GPUs in a vec
	learned []string         // resources that were held and that neither a queue nor the capacity may name
	caps    vec
}

// The fixed places in a vec; models follow.
const (
	cores = iota
	memory
	gpus
	firstModel
)

// vec are amounts by resource.
type vec []int64

type node struct {
	name   string
	parent int32 // -1 for the root
	queue  cluster.Queue

	guarantee, withheld vec
	named               []bool // resources that the guarantee names
	most                vec    // guarantee and borrowing limit; unlimited where no limit is named
	userMost            vec    // unlimited likewise
	firmMost            vec    // of what nobody may preempt; nil if nothing limits it

	used    vec // by all that is below
	load    vec // used, and what is withheld below and not used
	firm    vec // of used, what nobody may preempt
	ownFirm vec // of it, what is of this very queue
	running int32
	direct  map[string]*holder // what owners hold of this very queue
	users   map[string]*holder // and with all below it, if it limits users
	jobs    map[string]*running
	history vec // decayed mean of used, in parts of 2^-historyBits; of leaves, as of historyAt
	at      int64
	mean    vec // history at the tree's now, over all that is below
	half    int64

	children []int32
	// The tournament: of a leaf its head, of others the winner's.
	heap []int32 // children that take part, a heap by key
	pos  int32   // in the parent's heap, -1 when it does not take part
	head vec     // what the next job asks for
	key  key
}

type holder struct {
	used    vec
	running int32
}

// running is a job that holds something.
type running struct {
	owner string
	gangs int32
}

const unlimited = int64(1) << 62

// New returns a tree without queues and capacity.
func New() *Tree {
	t := &Tree{queues: map[string]cluster.Queue{}}
	t.rebuild()
	return t
}

// SetCapacity says what the cluster has, of all and by model. It may shrink below what is held: nothing
// is taken from anybody.
func (t *Tree) SetCapacity(capacity cluster.Amount) {
	known := true
	for _, m := range capacity.Models {
		_, has := t.model[m.Model]
		known = known && has
	}
	t.capacity = capacity
	if !known {
		t.rebuild()
		return
	}
	t.setCaps()
	t.rekey()
}

// Capacity is what SetCapacity said.
func (t *Tree) Capacity() cluster.Amount { return t.capacity }

// Set replaces all queues, or none of them if Check has something against the new ones. What
// those hold that stay is kept.
func (t *Tree) Set(queues []cluster.Queue) error {
	if err := Check(queues).Err(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	t.queues = make(map[string]cluster.Queue, len(queues))
	for _, q := range queues {
		t.queues[q.Name] = q
	}
	t.rebuild()
	return nil
}

// Put adds a queue or changes it, with effect on the next question; a change that would make the
// tree wrong is refused, and changes nothing.
func (t *Tree) Put(q cluster.Queue) error {
	queues := make([]cluster.Queue, 0, len(t.queues)+1)
	for name, old := range t.queues {
		if name != q.Name {
			queues = append(queues, old)
		}
	}
	return t.Set(append(queues, q))
}

// Delete takes out a queue that has none below it and holds nothing.
func (t *Tree) Delete(name string) error {
	i, known := t.byName[name]
	if !known {
		return fault.New(fault.NotFound, "there is no queue %q", cluster.Clip(name))
	}
	n := &t.nodes[i]
	if len(n.children) > 0 {
		return fault.New(fault.Conflict, "queue %q: queue %q is below it: delete that first", name, t.nodes[n.children[0]].name)
	}
	if n.running > 0 {
		return fault.New(fault.Conflict, "queue %q: %d jobs of it are running: wait until they have ended", name, n.running)
	}
	delete(t.queues, name)
	t.rebuild()
	return nil
}

// Queue returns a queue as it was put.
func (t *Tree) Queue(name string) (cluster.Queue, bool) {
	q, known := t.queues[name]
	return q, known
}

// Under reports whether a queue is another or below it; all are below "".
func (t *Tree) Under(queue, above string) bool {
	i, known := t.byName[queue]
	j, alsoKnown := t.byName[above]
	for known && i > 0 && i != j {
		i = t.nodes[i].parent
	}
	return above == "" || known && alsoKnown && i == j
}

// Queues are all queues: parents before those below them, siblings by name.
func (t *Tree) Queues() []cluster.Queue {
	var all []cluster.Queue
	var walk func(i int32)
	walk = func(i int32) {
		if i > 0 {
			all = append(all, t.nodes[i].queue)
		}
		for _, child := range t.nodes[i].children {
			walk(child)
		}
	}
	walk(0)
	return all
}

// leaf returns a queue's node, nil if there is none.
func (t *Tree) leaf(name string) *node {
	i, known := t.byName[name]
	if !known {
		return nil
	}
	return &t.nodes[i]
}

// rebuild makes the nodes anew from the queues, and keeps what the old ones hold.
func (t *Tree) rebuild() {
	old, oldNames := t.nodes, t.names
	oldByName := t.byName
	t.intern()
	names := make([]string, 0, len(t.queues))
	for name := range t.queues {
		names = append(names, name)
	}
	slices.Sort(names)
	t.nodes = make([]node, len(names)+1)
	t.byName = make(map[string]int32, len(names))
	t.nodes[0] = t.make(cluster.Queue{Weight: 1}, -1)
	for i, name := range names {
		t.byName[name] = int32(i + 1)
	}
	for i, name := range names {
		q := t.queues[name]
		parent := int32(0)
		if q.Parent != "" {
			parent = t.byName[q.Parent]
		}
		t.nodes[i+1] = t.make(q, parent)
	}
	for i := 1; i < len(t.nodes); i++ {
		parent := &t.nodes[t.nodes[i].parent]
		parent.children = append(parent.children, int32(i))
	}
	t.setCaps()
	t.carry(old, oldNames, oldByName)
}

// carry takes over what the queues held before the tree was made anew.
func (t *Tree) carry(old []node, oldNames []string, oldByName map[string]int32) {
	move := func(v vec) vec {
		if v == nil {
			return nil
		}
		moved := t.zero()
		for r, amount := range v {
			if r < firstModel {
				moved[r] = amount
			} else if at, known := t.model[modelOf(oldNames[r])]; known {
				moved[at] = amount
			}
		}
		return moved
	}
	t.settle(0)
	for i := 1; i < len(t.nodes); i++ {
		n := &t.nodes[i]
		at, existed := oldByName[n.name]
		if !existed {
			continue
		}
		was := &old[at]
		n.jobs = was.jobs
		for owner, held := range was.direct {
			t.spread(int32(i), owner, move(held.used), held.running)
		}
		t.firm(int32(i), move(was.ownFirm), 1)
		if len(was.children)+len(n.children) == 0 {
			n.history, n.at = move(was.history), was.at
			n.head = move(was.head)
			t.recall(int32(i))
		}
	}
	t.rekey()
}

// settle fills in what is withheld, from the leaves up, for a tree that holds nothing.
func (t *Tree) settle(i int32) {
	n := &t.nodes[i]
	for _, child := range n.children {
		t.settle(child)
		c := &t.nodes[child]
		for r := range n.load {
			n.load[r] = sum(n.load[r], max(c.load[r], c.withheld[r]))
		}
	}
}

func (t *Tree) make(q cluster.Queue, parent int32) node {
	n := node{
		name: q.Name, parent: parent, queue: q, pos: -1,
		guarantee: t.zero(), withheld: t.zero(), most: t.zero(), userMost: t.zero(),
		named: make([]bool, len(t.names)), used: t.zero(), load: t.zero(), history: t.zero(), mean: t.zero(),
		firm: t.zero(), ownFirm: t.zero(),
		direct: map[string]*holder{}, jobs: map[string]*running{},
	}
	if len(q.Unpreemptible) > 0 {
		n.firmMost = t.zero()
		for r, name := range t.names {
			n.firmMost[r] = unlimited
			if most, limited := q.Unpreemptible.Of(name); limited {
				n.firmMost[r] = most
			}
		}
	}
	if len(q.User.Most) > 0 || q.User.MaxRunning > 0 {
		n.users = map[string]*holder{}
	}
	ofModels := int64(0)
	for r, name := range t.names {
		n.guarantee[r], n.named[r] = q.Guarantee.Of(name)
		if r >= firstModel {
			ofModels = sum(ofModels, n.guarantee[r])
		}
	}
	if ofModels > 0 && n.guarantee[gpus] < ofModels { // GPUs of a model are GPUs
		n.guarantee[gpus], n.named[gpus] = ofModels, true
	}
	for r, name := range t.names {
		n.most[r], n.userMost[r] = unlimited, unlimited
		if borrow, limited := q.Borrow.Of(name); limited {
			n.most[r] = sum(n.guarantee[r], borrow)
		}
		if most, limited := q.User.Most.Of(name); limited {
			n.userMost[r] = most
		}
		if lend, limited := q.Lend.Of(name); limited {
			n.withheld[r] = max(0, n.guarantee[r]-lend)
		}
	}
	return n
}

// intern numbers the resources that the capacity and the queues name.
func (t *Tree) intern() {
	models := map[string]bool{}
	for _, name := range t.learned {
		models[name] = true
	}
	for _, m := range t.capacity.Models {
		models[cluster.ResourceGPUs+"/"+m.Model] = true
	}
	for _, q := range t.queues {
		for _, quota := range []cluster.Quota{q.Guarantee, q.Borrow, q.Lend, q.Unpreemptible, q.User.Most} {
			for _, limit := range quota {
				switch limit.Resource {
				case cluster.ResourceCores, cluster.ResourceMemory, cluster.ResourceGPUs:
				default:
					models[limit.Resource] = true
				}
			}
		}
	}
	t.names = []string{cluster.ResourceCores, cluster.ResourceMemory, cluster.ResourceGPUs}
	for name := range models {
		t.names = append(t.names, name)
	}
	slices.Sort(t.names[firstModel:])
	t.model = make(map[string]int32, len(models))
	for r, name := range t.names[firstModel:] {
		t.model[modelOf(name)] = int32(r + firstModel)
	}
}

// modelOf is the model's part of a resource's name.
func modelOf(resource string) string { return resource[len(cluster.ResourceGPUs)+1:] }

func (t *Tree) zero() vec { return make(vec, len(t.names)) }

// learn makes the models of an amount known.
func (t *Tree) learn(a cluster.Amount) {
	for _, m := range a.Models {
		if _, known := t.model[m.Model]; !known {
			t.learned = append(t.learned, cluster.ResourceGPUs+"/"+m.Model)
			t.rebuild()
		}
	}
}

// buffer is room for a vec on the stack.
type buffer [16]int64

// vec puts an amount in the order of the tree's resources, into the buffer if that is large enough. Of a
// model that nobody named, nothing can be limited.
func (t *Tree) vec(a cluster.Amount, room *buffer) vec {
	v := room[:]
	if len(t.names) > len(v) {
		v = t.zero()
	}
	v = v[:len(t.names)]
	v[cores], v[memory], v[gpus] = a.MilliCPU, a.Memory, a.MilliGPU
	for _, m := range a.Models {
		if r, known := t.model[m.Model]; known {
			v[r] = m.Milli
		}
	}
	return v
}

// amount is the inverse of vec.
func (t *Tree) amount(v vec) cluster.Amount {
	a := cluster.Amount{MilliCPU: v[cores], Memory: v[memory], MilliGPU: v[gpus]}
	for r := firstModel; r < len(v); r++ {
		if v[r] != 0 {
			a.Models = append(a.Models, cluster.ModelAmount{Model: modelOf(t.names[r]), Milli: v[r]})
		}
	}
	slices.SortFunc(a.Models, func(x, y cluster.ModelAmount) int { return cmp.Compare(x.Model, y.Model) })
	return a
}

// sum stops short of overflowing.
func sum(a, b int64) int64 { return max(-unlimited, min(unlimited, a+b)) }

// setCaps puts the capacity in the order of the resources, sums what the root's children are
// guaranteed, and tells every node its half-life.
func (t *Tree) setCaps() {
	var room buffer
	t.caps = slices.Clone(t.vec(t.capacity, &room))
	root := &t.nodes[0]
	clear(root.guarantee)
	for _, child := range root.children {
		for r, amount := range t.nodes[child].guarantee {
			root.guarantee[r] = sum(root.guarantee[r], amount)
		}
		t.inherit(child, int64(t.nodes[child].queue.HalfLife/time.Second))
	}
}

func (t *Tree) inherit(i int32, half int64) {
	t.nodes[i].half = half
	for _, child := range t.nodes[i].children {
		t.inherit(child, half)
	}
}
