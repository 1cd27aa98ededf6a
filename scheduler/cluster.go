// Package scheduler decides which waiting gangs are placed, and where, who makes room for whom, and for whom room is
// kept. It is pure: the same state and the same instant always give the same plan, so that production and the
// simulator run the same code. See DESIGN.md.
package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/order"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/share"
)

// Options are what a Cluster is made with. The zero value is what production uses.
type Options struct {
	// Policy is which node is best. Nil is learned: score.Gradient of what is asked for, where GPUs are, else room.Tightest.
	Policy room.Policy
	// Patience is how long the first of a queue lets others overtake it while nobody knows when its room
	// will be free; then room is kept for it. 0 is DefaultPatience, less keeps it at once.
	Patience time.Duration
	// Restart is how long a gang takes from being placed to doing its work, unless a Running says otherwise; 0 is
	// DefaultRestart.
	Restart time.Duration
}

const (
	// DefaultPatience is long enough for small jobs to fill what is idle, and short beside what large jobs take.
	DefaultPatience = 5 * time.Minute
	// DefaultRestart is what the published simulators charge (Pollux, OSDI 2021, section 5.3).
	DefaultRestart = 30 * time.Second
)

// Cluster is all that the scheduler knows: nodes, queues, gangs that wait and gangs that run. What has
// changed is told to it, at a cost that depends on the change alone; Plan decides. It is pure: the same
// state and the same instant give the same plan. It is not safe for concurrent use.
type Cluster struct {
	Room   *room.Map   // what is free on the nodes; to read
	Queues *share.Tree // what the queues hold; to read
	opts   Options
	needs  pool
	wanted wanted
	lines  map[string]*line
	sorted []*line // by name

	waiting map[string]*waiter
	running map[string]*runner
	holds   map[string]*hold
	listed  []*hold          // sorted; nil if holds has changed since
	shuts   map[string]*shut // limits that are kept, by their queue; "" is what others withhold, and those behind firmIn are on what nobody may preempt
	spells  spells           // in which things are kept for those that may wait for ever
	works   map[string]*work // of gangs that wait or run
	history *order.History
	models  map[string]string         // of devices
	nodes   map[string]cluster.Amount // what each has
	total   cluster.Amount
	resized bool // total has changed since the queues were told

	asleep sleepers
	fresh  int    // asks that were not tried since they became active
	gained bool   // something may fit, or be allowed, that did not or was not
	alarm  int64  // when time alone may change a plan; 0 for never
	clock  int64  // of the last Plan
	moves  uint64 // counts what may change for whom there is room, or could be made
	decays bool   // a queue's share falls with time alone
}

// New returns a cluster without nodes, queues and gangs.
func New(o Options) *Cluster {
	o.Patience, o.Restart = cmp.Or(o.Patience, DefaultPatience), cmp.Or(o.Restart, DefaultRestart)
	return &Cluster{
		Room: room.New(o.Policy), Queues: share.New(), opts: o,
		needs: pool{known: map[string]*Needs{}}, lines: map[string]*line{},
		waiting: map[string]*waiter{}, running: map[string]*runner{}, holds: map[string]*hold{}, shuts: map[string]*shut{}, works: map[string]*work{}, history: order.NewHistory(),
		models: map[string]string{}, nodes: map[string]cluster.Amount{},
	}
}

// SetNode adds a node, or replaces what was known of it and of what is used there.
func (c *Cluster) SetNode(n cluster.Node, used cluster.Resources) {
	amount := n.Amount()
	if n.State != cluster.NodeReady {
		amount = used.Amount(n.Devices) // the rest of it nobody can have
	}
	for _, d := range n.Devices {
		if d.Kind == cluster.DeviceGPU {
			c.models[d.UUID] = d.Model
		}
	}
	shrinks := lacks(amount, c.nodes[n.ID])
	c.size(n.ID, amount)
	if n.State != cluster.NodeReady || shrinks {
		c.unholdOn(n.ID)
	}
	if c.Room.Set(n, used) {
		c.gain()
	}
}

// DeleteNode forgets a node.
func (c *Cluster) DeleteNode(id string) {
	c.size(id, cluster.Amount{})
	delete(c.nodes, id)
	c.unholdOn(id)
	c.Room.Delete(id)
}

// size notes what a node has in all.
func (c *Cluster) size(node string, amount cluster.Amount) {
	old := c.nodes[node]
	c.nodes[node] = amount
	if !sameAmount(old, amount) {
		c.total = c.total.Plus(old, -1).Plus(amount, 1)
		c.resized = true
	}
}

func sameAmount(a, b cluster.Amount) bool {
	return a.MilliCPU == b.MilliCPU && a.Memory == b.Memory && a.MilliGPU == b.MilliGPU && slices.Equal(a.Models, b.Models)
}

// lacks reports whether an amount is less than another in anything.
func lacks(a, b cluster.Amount) bool {
	return a.MilliCPU < b.MilliCPU || a.Memory < b.Memory || a.MilliGPU < b.MilliGPU ||
		slices.ContainsFunc(a.Plus(b, -1).Models, func(m cluster.ModelAmount) bool { return m.Milli < 0 })
}

// SetQueues replaces all queues, or none of them if something is wrong with the new ones. A queue that gangs name and
// nobody described has weight 1 and no limits; if no queue may have its name, or there are too many, they are admitted
// nowhere, which is no reason to refuse the others.
func (c *Cluster) SetQueues(queues []cluster.Queue) error {
	described := map[string]bool{}
	for _, q := range queues {
		described[q.Name] = true
	}
	queues = slices.Clone(queues)
	for _, l := range c.sorted {
		q := cluster.Queue{Name: l.queue.Name, Weight: 1}
		if !described[q.Name] && l.used() && len(queues) < cluster.MaxQueues && len(q.Validate()) == 0 {
			queues = append(queues, q)
		}
	}
	if err := c.Queues.Set(queues); err != nil {
		return err
	}
	c.sorted = slices.DeleteFunc(c.sorted, func(l *line) bool {
		q, known := c.Queues.Queue(l.queue.Name)
		if !known && l.used() {
			return false
		}
		if !known { // it is made anew with the queue
			delete(c.lines, l.queue.Name)
			return true
		}
		l.describe(q)
		if !l.shortest() { // it may have been
			l.unrank()
		}
		return false
	})
	c.decays = slices.ContainsFunc(queues, func(q cluster.Queue) bool { return q.HalfLife > 0 })
	c.gain()
	return nil
}

// Remember says what a queue held of late, as the ledger has it.
func (c *Cluster) Remember(queue string, h share.History) { c.Queues.Remember(queue, h) }

// line is the queue's line, made when it is first asked for.
func (c *Cluster) line(queue string) *line {
	if l := c.lines[queue]; l != nil {
		return l
	}
	q, known := c.Queues.Queue(queue)
	if !known {
		q = cluster.Queue{Name: queue, Weight: 1}
		if err := c.Queues.Put(q); err != nil { // a name that no queue may have: Admit refuses it
			q.Name = queue
		}
	}
	l := &line{running: map[string]*runner{}}
	l.describe(q)
	c.lines[queue] = l
	at, _ := slices.BinarySearchFunc(c.sorted, queue, func(l *line, name string) int { return cmp.Compare(l.queue.Name, name) })
	c.sorted = slices.Insert(c.sorted, at, l)
	return l
}

// amountOf is what allocations hold, GPUs by model.
func (c *Cluster) amountOf(allocations []cluster.Allocation) cluster.Amount {
	var sum cluster.Amount
	models := map[string]int64{}
	for i := range allocations {
		r := &allocations[i].Resources
		sum.MilliCPU += r.MilliCPU
		sum.Memory += r.Memory
		sum.MilliGPU += int64(len(r.Devices)) * 1000
		for _, uuid := range r.Devices {
			models[c.models[uuid]] += 1000
		}
		for _, s := range r.Shares {
			sum.MilliGPU += s.MilliGPU()
			models[c.models[s.UUID]] += s.MilliGPU()
		}
	}
	for model, milli := range models { // sorted below
		if model != "" {
			sum.Models = append(sum.Models, cluster.ModelAmount{Model: model, Milli: milli})
		}
	}
	slices.SortFunc(sum.Models, func(a, b cluster.ModelAmount) int { return cmp.Compare(a.Model, b.Model) })
	return sum
}

// charge notes that a gang holds something of its queue. A queue that cannot be charged (it has others below
// it since) is not: what runs there runs on.
func (c *Cluster) charge(claim share.Claim) *share.Claim {
	if c.Queues.Charge(claim) != nil {
		return nil
	}
	return &claim
}

// release is the inverse of charge.
func (c *Cluster) release(claim *share.Claim) {
	if claim != nil && c.Queues.Release(*claim) == nil {
		c.gain()
	}
}

// gain notes that something may fit, or be allowed, that did not or was not.
func (c *Cluster) gain() {
	c.gained = true
	c.moves++
}

// Claim is what a gang of a size takes of its queue.
func (c *Cluster) Claim(a Ask, s *Size) share.Claim { return a.claim(s.Amount) }

// Allows reports whether the queue's limits let a gang hold these allocations, whose GPUs are of known models.
func (c *Cluster) Allows(a Ask, allocations []cluster.Allocation) bool {
	_, ok := c.Queues.Admit(a.claim(c.amountOf(allocations)))
	return ok
}
