package command

import (
	"reflect"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/share"
)

// putQueue writes a queue. Whether all queues make a tree is checked when the record has put them all.
func (w *recording) putQueue(queue cluster.Queue, expected uint64) error {
	old, existed := w.Queue(queue.Name)
	if err := w.expect(state.KindQueue, queue.Name, expected, old.Revision); err != nil {
		return err
	}
	if queue.Revision = old.Revision; existed && reflect.DeepEqual(queue, old) {
		return nil
	}
	if err := invalid(state.KindQueue, queue.Name, queue.Validate()); err != nil {
		return err
	}
	w.PutQueue(queue)
	w.queues = true
	return nil
}

// checkQueues holds the tree of queues, as the whole record leaves it, against its rules.
func (w *recording) checkQueues() error {
	if !w.queues {
		return nil
	}
	queues := slices.Collect(w.Queues())
	if err := share.Check(queues).Err(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	for _, queue := range queues {
		if queue.Parent == "" {
			continue
		}
		if unended, _ := w.QueueJobs(queue.Parent); unended > 0 {
			return fault.New(fault.Conflict, "queue %q: parent: %d jobs of queue %q have not ended, and a queue with others below it takes no jobs: wait for them, or put it elsewhere",
				queue.Name, unended, queue.Parent)
		}
		if usage := w.QueueUsage(queue.Parent); usage.Running > 0 {
			return fault.New(fault.Conflict, "queue %q: parent: %d jobs hold something of queue %q, and a queue with others below it takes no jobs: wait for them, or put it elsewhere",
				queue.Name, usage.Running, queue.Parent)
		}
	}
	return nil
}

// checkLine says whether a new job may join its queue. Jobs that another made, like trials of a sweep, are
// counted and not refused: their number is limited by what made them.
func (w *recording) checkLine(job cluster.Job) error {
	if !w.HasQueue(job.Queue) {
		return fault.New(fault.Invalid, "job %q: queue: %q does not exist: there %s", job.Name, cluster.Clip(job.Queue), named(w.Leaves(10)))
	}
	if !w.TakesJobs(job.Queue) {
		var below []string
		for queue := range w.QueuesBelow(job.Queue) {
			below = append(below, queue.Name)
		}
		return fault.New(fault.Invalid, "job %q: queue: %q has others below it and takes no jobs: there %s", job.Name, job.Queue, named(below))
	}
	if job.Parent != "" {
		return nil
	}
	for name := job.Queue; name != ""; {
		queue, _ := w.Queue(name)
		if most := int64(queue.MaxWaiting); most > 0 {
			if waiting := w.waitingBelow(name); waiting >= most {
				return fault.New(fault.Exhausted, "job %q: %d jobs wait in queue %q, the most that it takes (max_waiting %d): submit it again when some have started, or have it raised with clary queue set %s --max-waiting N",
					job.Name, waiting, name, most, name)
			}
		}
		name = queue.Parent
	}
	return nil
}

func named(names []string) string {
	if len(names) == 1 {
		return "is " + names[0]
	}
	return "are " + strings.Join(names, ", ")
}

// waitingBelow is how many jobs wait in a queue and all below it.
func (w *recording) waitingBelow(name string) int64 {
	_, waiting := w.QueueJobs(name)
	for queue := range w.QueuesBelow(name) {
		waiting += w.waitingBelow(queue.Name)
	}
	return waiting
}

// deleteQueue looks at every job: a queue is rarely deleted, and jobs that have ended are in no index.
func (w *recording) deleteQueue(name string) error {
	if name == cluster.DefaultQueue {
		return fault.New(fault.Invalid, "queue %q: jobs that name no queue need it: it cannot be deleted", name)
	}
	for queue := range w.QueuesBelow(name) {
		return fault.New(fault.Conflict, "queue %q: queue %q is below it: delete that first", name, queue.Name)
	}
	for job := range w.Jobs("") {
		if job.Queue == name {
			return fault.New(fault.Conflict, "queue %q: job %q is in it: delete that first", name, job.Name)
		}
	}
	for secret := range w.SecretsOf(name) {
		return fault.New(fault.Conflict, "queue %q: secret %q is in it: delete that first", name, secret.Name)
	}
	for gang := range w.Gangs() {
		if gang.Queue == name {
			return fault.New(fault.Conflict, "queue %q: gang %q is in it: delete its job first", name, gang.ID())
		}
	}
	w.DeleteQueue(name)
	w.queues = true
	return nil
}

// tenancy holds a plan against the limits of the queues, as they are when it is applied and with what
// the plan's earlier gangs took.
type tenancy struct {
	tx   *state.Tx
	now  int64
	tree *share.Tree // made for the first gang
	free bool        // no queue limits anything
}

// admit charges what a gang would hold, or says which limit does not let it.
func (t *tenancy) admit(gang cluster.Gang, claims []cluster.Claim) string {
	if t.tree == nil && !t.free {
		t.look()
	}
	if t.free {
		return ""
	}
	claim := share.Claim{Queue: gang.Queue, Owner: gang.Owner, Job: gang.Job}
	for _, c := range claims {
		claim.Firm, claim.Amount = c.Firm, claim.Plus(c.Amount, 1)
	}
	if t.tx.Holds(gang.Queue, gang.Job) {
		t.tree.Known(gang.Queue, gang.Owner, gang.Job)
	}
	if block, ok := t.tree.Admit(claim); !ok {
		return block.String()
	}
	if err := t.tree.Charge(claim); err != nil {
		return err.Error()
	}
	return ""
}

func (t *tenancy) look() {
	for queue := range t.tx.Queues() {
		if limits(queue) {
			t.tree = t.tx.Shares(t.now)
			return
		}
	}
	t.free = true
}

func limits(q cluster.Queue) bool {
	return len(q.Guarantee)+len(q.Borrow)+len(q.Unpreemptible)+len(q.User.Most) > 0 || q.MaxRunning > 0 || q.User.MaxRunning > 0
}

// claims are what the tasks of a placement are charged, in the order of its allocations. What nobody may preempt is marked as such from the
// format on that knows the mark: a build that does not would charge the same placement without it.
func (r rooms) claims(gang cluster.Gang, p cluster.Placement) []cluster.Claim {
	claims, firm := make([]cluster.Claim, len(p.Allocations)), gang.NonPreemptible && r.tx.Format() >= firmFormat
	for i, allocation := range p.Allocations {
		claims[i] = cluster.Claim{
			Queue: gang.Queue, Owner: gang.Owner, Firm: firm,
			Amount: allocation.Resources.Amount(r.on(allocation.Node).node.Devices),
		}
	}
	return claims
}
