package share

import (
	"fmt"

	"github.com/clary-ml/clary/cluster"
)

// Limits that a Block names.
const (
	LimitQueue       = "queue"         // there is no such queue, or it has others below it
	LimitRunning     = "max_running"   // of jobs at a time
	LimitUser        = "user"          // what one owner may hold
	LimitUserRunning = "user_running"  // jobs of one owner at a time
	LimitFirm        = "unpreemptible" // what jobs may hold that nobody may preempt
	LimitBorrow      = "borrow"        // guarantee and borrowing limit
	LimitWithheld    = "withheld"      // what is left is withheld by queues that do not lend it
)

// Block is the limit that keeps a gang from being placed.
type Block struct {
	Queue    string // whose limit it is: the gang's or one above it; "" is the whole cluster's
	Limit    string
	Resource string // "" for a limit on jobs
	Owner    string // for a limit on users

	Most  int64 // what may be held
	Used  int64 // what is held
	Asked int64
	Short int64 // how much less would have to be held
}

// Admit reports whether no limit keeps a gang from holding its claim on top of what is held, or the first
// limit that does, from the queue up. That there is room on the nodes is not asked. A claim whose
// models are not known yet is to be asked again when they are, and so is one that something was released for.
func (t *Tree) Admit(c Claim) (Block, bool) {
	i, known := t.byName[c.Queue]
	if !known || len(t.nodes[i].children) > 0 {
		return Block{Queue: c.Queue, Limit: LimitQueue}, false
	}
	var room buffer
	up := t.vec(c.Amount, &room)
	jobs := int32(1)
	if c.Job != "" && t.nodes[i].jobs[c.Job] != nil {
		jobs = 0
	}
	var asked buffer
	x := append(asked[:0], up...)
	for ; i > 0; i = t.nodes[i].parent {
		n := &t.nodes[i]
		if block, ok := t.admitJobs(n, c, x, jobs); !ok {
			return block, false
		}
		if block, ok := t.admitFirm(n, c, x); !ok {
			return block, false
		}
		for r := range up {
			if x[r] <= 0 {
				continue
			}
			after := sum(n.load[r], up[r])
			if up[r] > 0 && after > n.most[r] {
				return Block{
					Queue: n.name, Limit: LimitBorrow, Resource: t.names[r],
					Most: n.most[r], Used: n.load[r], Asked: x[r], Short: after - n.most[r],
				}, false
			}
			up[r] = max(after, n.withheld[r]) - max(n.load[r], n.withheld[r])
		}
	}
	return t.admitWithheld(up, x)
}

// admitJobs asks the limits on jobs and users.
func (t *Tree) admitJobs(n *node, c Claim, x vec, jobs int32) (Block, bool) {
	q := &n.queue
	if most := q.MaxRunning; most > 0 && jobs > 0 && n.running >= most {
		return blockOfJobs(Block{Queue: n.name, Limit: LimitRunning}, most, n.running), false
	}
	if n.users == nil {
		return Block{}, true
	}
	var held holder
	if of := n.users[c.Owner]; of != nil {
		held = *of
	}
	if most := q.User.MaxRunning; most > 0 && jobs > 0 && held.running >= most {
		return blockOfJobs(Block{Queue: n.name, Limit: LimitUserRunning, Owner: c.Owner}, most, held.running), false
	}
	for r := range x {
		used := int64(0)
		if held.used != nil {
			used = held.used[r]
		}
		if after := sum(used, x[r]); x[r] > 0 && after > n.userMost[r] {
			return Block{
				Queue: n.name, Limit: LimitUser, Resource: t.names[r], Owner: c.Owner,
				Most: n.userMost[r], Used: used, Asked: x[r], Short: after - n.userMost[r],
			}, false
		}
	}
	return Block{}, true
}

// admitFirm asks the limit on what nobody may preempt.
func (t *Tree) admitFirm(n *node, c Claim, x vec) (Block, bool) {
	if !c.Firm || n.firmMost == nil {
		return Block{}, true
	}
	for r := range x {
		if after := sum(n.firm[r], x[r]); x[r] > 0 && after > n.firmMost[r] {
			return Block{
				Queue: n.name, Limit: LimitFirm, Resource: t.names[r],
				Most: n.firmMost[r], Used: n.firm[r], Asked: x[r], Short: after - n.firmMost[r],
			}, false
		}
	}
	return Block{}, true
}

func blockOfJobs(b Block, most, running int32) Block {
	b.Most, b.Used, b.Asked, b.Short = int64(most), int64(running), 1, int64(running)+1-int64(most)
	return b
}

// admitWithheld asks at the root whether the claim would take what others withhold. That the
// cluster is simply full is for the nodes to say.
func (t *Tree) admitWithheld(up, x vec) (Block, bool) {
	root := &t.nodes[0]
	for r := range up {
		most := max(t.caps[r], root.guarantee[r])
		full := sum(root.used[r], x[r]) > most
		if after := sum(root.load[r], up[r]); up[r] > 0 && after > most && !full {
			return Block{
				Limit: LimitWithheld, Resource: t.names[r],
				Most: most, Used: root.load[r], Asked: x[r], Short: after - most,
			}, false
		}
	}
	return Block{}, true
}

// Barred are the models of which a claim could not hold any, though GPUs of any model would do for it:
// a claim for some GPUs that lands on these is blocked.
func (t *Tree) Barred(c Claim) []string {
	var barred []string
	for r := firstModel; r < len(t.names); r++ {
		one := c
		one.Amount = c.Plus(cluster.Amount{}, 1)
		one.Models = []cluster.ModelAmount{{Model: modelOf(t.names[r]), Milli: c.MilliGPU}}
		if block, ok := t.Admit(one); !ok && block.Resource == t.names[r] {
			barred = append(barred, modelOf(t.names[r]))
		}
	}
	return barred
}

// String says which limit it is, what is held of it and how much is short.
func (b Block) String() string {
	amount := func(n int64) string { return cluster.FormatAmount(b.Resource, n) }
	switch b.Limit {
	case LimitQueue:
		return fmt.Sprintf("queue %s takes no jobs: it is not there, or others are below it", b.Queue)
	case LimitRunning:
		return fmt.Sprintf("queue %s runs %d jobs, the most that it may (max_running %d)", b.Queue, b.Used, b.Most)
	case LimitUserRunning:
		return fmt.Sprintf("%s runs %d jobs in queue %s, the most that a user may (user.max_running %d)", b.Owner, b.Used, b.Queue, b.Most)
	case LimitUser:
		return fmt.Sprintf("%s holds %s of queue %s and may hold %s: %s asked, %s short", b.Owner, amount(b.Used), b.Queue, amount(b.Most), amount(b.Asked), amount(b.Short))
	case LimitBorrow:
		return fmt.Sprintf("queue %s has %s taken of the %s that it may have, its guarantee and its borrowing limit: %s asked, %s short",
			b.Queue, amount(b.Used), amount(b.Most), amount(b.Asked), amount(b.Short))
	case LimitFirm:
		return fmt.Sprintf("jobs that must not be preempted hold %s of queue %s and may hold %s: %s asked, %s short; without preemptible=false it would not count",
			amount(b.Used), b.Queue, amount(b.Most), amount(b.Asked), amount(b.Short))
	case LimitWithheld:
		return fmt.Sprintf("what is free is withheld by queues that do not lend it: %s asked, %s short", amount(b.Asked), amount(b.Short))
	}
	return ""
}
