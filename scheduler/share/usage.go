package share

import (
	"cmp"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Charge notes that a gang holds its claim. It does not ask whether it may: Admit does.
func (t *Tree) Charge(c Claim) error {
	if !positive(c.Amount) {
		return fault.New(fault.Internal, "queue %q: job %q of %s would hold less than nothing", c.Queue, c.Job, c.Owner)
	}
	t.learn(c.Amount)
	i, known := t.byName[c.Queue]
	if !known {
		return unknownQueue(c.Queue)
	}
	t.remember(i)
	var room buffer
	v := t.vec(c.Amount, &room)
	t.spread(i, c.Owner, v, t.join(&t.nodes[i], c))
	if c.Firm {
		t.firm(i, v, 1)
	}
	t.touch(i)
	return nil
}

// Release is the inverse of Charge. What was not charged is refused, and nothing changes.
func (t *Tree) Release(c Claim) error {
	if !positive(c.Amount) {
		return fault.New(fault.Internal, "queue %q: job %q of %s would give back less than nothing", c.Queue, c.Job, c.Owner)
	}
	t.learn(c.Amount)
	i, known := t.byName[c.Queue]
	if !known {
		return unknownQueue(c.Queue)
	}
	n := &t.nodes[i]
	var room buffer
	v := t.vec(c.Amount, &room)
	held := n.direct[c.Owner]
	if held == nil || c.Job != "" && n.jobs[c.Job] == nil {
		return fault.New(fault.Internal, "queue %q: job %q of %s holds nothing that could be released", c.Queue, c.Job, c.Owner)
	}
	for r := range v {
		if held.used[r] < v[r] {
			return fault.New(fault.Internal, "queue %q: %s holds %s, less than the %s that are released", c.Queue, c.Owner,
				cluster.FormatAmount(t.names[r], held.used[r]), cluster.FormatAmount(t.names[r], v[r]))
		}
	}
	for r := range v {
		if c.Firm && n.ownFirm[r] < v[r] {
			return fault.New(fault.Internal, "queue %q: jobs that must not be preempted hold %s, less than the %s that are released", c.Queue,
				cluster.FormatAmount(t.names[r], n.ownFirm[r]), cluster.FormatAmount(t.names[r], v[r]))
		}
	}
	t.remember(i)
	if c.Firm {
		t.firm(i, v, -1)
	}
	left := t.leave(n, c)
	for r := range v {
		v[r] = -v[r]
	}
	t.spread(i, c.Owner, v, left)
	t.touch(i)
	return nil
}

func positive(a cluster.Amount) bool {
	for _, m := range a.Models {
		if m.Milli < 0 {
			return false
		}
	}
	return a.MilliCPU >= 0 && a.Memory >= 0 && a.MilliGPU >= 0
}

func unknownQueue(name string) error {
	return fault.New(fault.NotFound, "there is no queue %q", cluster.Clip(name))
}

// join counts a gang of a job, and tells how many jobs began to run.
func (t *Tree) join(n *node, c Claim) int32 {
	if c.Job == "" {
		return 1
	}
	job := n.jobs[c.Job]
	if job == nil {
		n.jobs[c.Job] = &running{owner: c.Owner, gangs: 1}
		return 1
	}
	job.gangs++
	return 0
}

func (t *Tree) leave(n *node, c Claim) int32 {
	if c.Job == "" {
		return -1
	}
	job := n.jobs[c.Job]
	if job.gangs--; job.gangs > 0 {
		return 0
	}
	delete(n.jobs, c.Job)
	return -1
}

// spread adds what an owner holds of a leaf to all above it.
func (t *Tree) spread(i int32, owner string, v vec, jobs int32) {
	var room buffer
	up := room[:]
	if len(v) > len(up) {
		up = t.zero()
	}
	up = up[:len(v)]
	copy(up, v)
	for leaf := true; i >= 0; i, leaf = t.nodes[i].parent, false {
		n := &t.nodes[i]
		n.running += jobs
		for r := range v {
			n.used[r] = sum(n.used[r], v[r])
			before := max(n.load[r], n.withheld[r])
			n.load[r] = sum(n.load[r], up[r])
			up[r] = max(n.load[r], n.withheld[r]) - before
		}
		if leaf {
			hold(n.direct, owner, v, jobs)
		}
		if n.users != nil {
			hold(n.users, owner, v, jobs)
		}
	}
}

// firm adds what a queue itself holds that nobody may preempt to it and all above it.
func (t *Tree) firm(i int32, v vec, sign int64) {
	for leaf := true; i >= 0; i, leaf = t.nodes[i].parent, false {
		n := &t.nodes[i]
		for r := range v {
			n.firm[r] = sum(n.firm[r], sign*v[r])
			if leaf {
				n.ownFirm[r] = sum(n.ownFirm[r], sign*v[r])
			}
		}
	}
}

func hold(by map[string]*holder, owner string, v vec, jobs int32) {
	held := by[owner]
	if held == nil {
		held = &holder{used: make(vec, len(v))}
		by[owner] = held
	}
	held.running += jobs
	empty := held.running == 0
	for r := range v {
		held.used[r] = sum(held.used[r], v[r])
		empty = empty && held.used[r] == 0
	}
	if empty {
		delete(by, owner)
	}
}

// Usage is what a queue holds.
type Usage struct {
	Used    cluster.Amount
	Firm    cluster.Amount // of it, what nobody may preempt
	Running int32          // jobs
	History History        // of queues without others below
	Owners  []Owner        // who hold something of this very queue, by name
}

// Owner is what one owner of jobs holds.
type Owner struct {
	Name    string
	Used    cluster.Amount
	Running int32
}

// Usage is what a queue and all below it hold; of "" it is the whole tree.
func (t *Tree) Usage(queue string) Usage {
	n := t.leaf(queue)
	if queue == "" {
		n = &t.nodes[0]
	}
	if n == nil {
		return Usage{}
	}
	usage := Usage{Used: t.amount(n.used), Firm: t.amount(n.firm), Running: n.running}
	usage.History = History{Mean: t.amount(n.history), At: n.at}
	for name, held := range n.direct {
		usage.Owners = append(usage.Owners, Owner{name, t.amount(held.used), held.running})
	}
	slices.SortFunc(usage.Owners, func(a, b Owner) int { return cmp.Compare(a.Name, b.Name) })
	return usage
}

// SetUsage replaces what is held of a queue itself: its owners' amounts and running jobs, and its
// history. The jobs are not known by name: see Known.
func (t *Tree) SetUsage(queue string, usage Usage) error {
	learn := []cluster.Amount{usage.Used, usage.Firm, usage.History.Mean}
	for _, owner := range usage.Owners {
		learn = append(learn, owner.Used)
	}
	for _, a := range learn {
		t.learn(a)
	}
	i, known := t.byName[queue]
	if !known {
		return unknownQueue(queue)
	}
	n := &t.nodes[i]
	for owner, held := range n.direct {
		back := make(vec, len(held.used))
		for r := range back {
			back[r] = -held.used[r]
		}
		t.spread(i, owner, back, -held.running)
	}
	t.firm(i, slices.Clone(n.ownFirm), -1)
	var firm buffer
	t.firm(i, t.vec(usage.Firm, &firm), 1)
	clear(n.jobs)
	for _, owner := range usage.Owners {
		var room buffer
		t.spread(i, owner.Name, slices.Clone(t.vec(owner.Used, &room)), owner.Running)
	}
	t.touch(i)
	t.Remember(queue, usage.History)
	return nil
}

// Known says that a job is among the running ones that SetUsage counted, so that a further gang of it
// is not counted as another job.
func (t *Tree) Known(queue, owner, job string) {
	if n := t.leaf(queue); n != nil && n.jobs[job] == nil {
		n.jobs[job] = &running{owner: owner, gangs: 1}
	}
}

// UsageOf is the ledger's record of what a queue itself holds.
func UsageOf(u cluster.QueueUsage) Usage {
	usage := Usage{Used: u.Used, Firm: u.Firm, Running: u.Running, History: History{Mean: u.Mean, At: u.At}}
	for _, o := range u.Owners {
		usage.Owners = append(usage.Owners, Owner{o.Owner, o.Used, o.Running})
	}
	return usage
}
