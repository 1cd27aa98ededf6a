package cluster

import "time"

// Queue is a tenant's place in the tree of shares. Jobs wait in queues that have none below them;
// the others divide what they have among those below.
type Queue struct {
	Name   string
	Parent string // empty for a child of the root
	// Weight divides what no guarantee covers: of two queues side by side that both want more, the one
	// with twice the weight gets twice as much.
	Weight int32

	Guarantee Quota // what it gets back whenever it asks; a resource that is not named is not guaranteed
	Borrow    Quota // how much more than its guarantee it may hold; not named: as much as there is
	Lend      Quota // how much of its guarantee others may use while it does not; not named: all of it

	// Unpreemptible is what jobs that nobody may preempt hold of it at the most; not named: no limit.
	Unpreemptible Quota

	MaxRunning int32     // jobs that hold something at a time; 0 is no limit
	MaxWaiting int32     // jobs that wait; one more is refused. 0 is no limit
	User       UserLimit // of each owner of jobs

	Order      QueueOrder
	Backfill   Backfill
	Preempt    Preempt
	MinRuntime time.Duration // what runs is not evicted earlier than that
	// HalfLife is how long it takes until what was used counts half; 0 counts only what is used now.
	// It is set on a queue below the root and holds for all that is under it.
	HalfLife time.Duration

	Revision uint64
}

// UserLimit is what one owner of jobs may hold of a queue.
type UserLimit struct {
	Most       Quota // not named: no limit
	MaxRunning int32 // jobs; 0 is no limit
}

// QueueOrder says which job of a queue goes first among those of equal priority.
type QueueOrder string

// The orders.
const (
	OrderFIFO     QueueOrder = "fifo"     // the one submitted first
	OrderShortest QueueOrder = "shortest" // the one that is expected to be done soonest
)

// Backfill says what may overtake a job that waits for room.
type Backfill string

// The ways to backfill.
const (
	BackfillNone         Backfill = "none"         // nothing
	BackfillEasy         Backfill = "easy"         // what does not delay the first that waits
	BackfillConservative Backfill = "conservative" // what does not delay any that waits
)

// Preempt says what a queue's jobs may evict.
type Preempt struct {
	// Within is what they may evict of their own queue: "never", "lower" priority, or "longer".
	Within PreemptRule
	// Reclaim is what they may evict of other queues to get the guarantee back: "never", "lower" priority
	// or "any".
	Reclaim PreemptRule
	// Fair is what they may evict of other queues that have more than their share: "never", "lower" or
	// "any".
	Fair PreemptRule
}

// PreemptRule says which jobs may be evicted, by their priority.
type PreemptRule string

// The rules.
const (
	PreemptNever PreemptRule = "never"
	PreemptLower PreemptRule = "lower" // of lower priority
	// PreemptLonger is also of the same priority what is expected to last much longer: for a queue whose order is shortest.
	PreemptLonger PreemptRule = "longer"
	PreemptAny    PreemptRule = "any"
)

// Limits on queues.
const (
	MaxQueues     = 10_000
	MaxQueueDepth = 16
	MaxQueueJobs  = 1 << 24
	maxHalfLife   = 366 * 24 * time.Hour
	minHalfLife   = time.Minute
	maxMinRuntime = 30 * 24 * time.Hour
)

// Effective returns the queue with what it leaves open said: orders and rules.
func (q Queue) Effective() Queue {
	q.Order = orElse(q.Order, OrderFIFO)
	q.Backfill = orElse(q.Backfill, BackfillEasy)
	q.Preempt.Within = orElse(q.Preempt.Within, PreemptLower)
	q.Preempt.Reclaim = orElse(q.Preempt.Reclaim, PreemptAny)
	q.Preempt.Fair = orElse(q.Preempt.Fair, PreemptNever)
	return q
}

func orElse[T ~string](value, open T) T {
	if value == "" {
		return open
	}
	return value
}

// Validate reports every mistake in the queue itself. Whether it fits among the others is told by
// scheduler/share.
func (q Queue) Validate() Problems {
	var p Problems
	CheckName(&p, "name", q.Name)
	if q.Parent != "" {
		CheckName(&p, "parent", q.Parent)
	}
	checkRange(&p, "weight", int64(q.Weight), 1, MaxWeight)
	p.Under("guarantee", q.Guarantee.Validate())
	p.Under("borrow", q.Borrow.Validate())
	p.Under("lend", q.Lend.Validate())
	q.checkLend(&p)
	p.Under("unpreemptible", q.Unpreemptible.Validate())
	checkRange(&p, "max_running", int64(q.MaxRunning), 0, MaxQueueJobs)
	checkRange(&p, "max_waiting", int64(q.MaxWaiting), 0, MaxQueueJobs)
	p.Under("user.most", q.User.Most.Validate())
	checkRange(&p, "user.max_running", int64(q.User.MaxRunning), 0, MaxQueueJobs)
	checkOneOf(&p, "order", q.Order, "", OrderFIFO, OrderShortest)
	checkOneOf(&p, "backfill", q.Backfill, "", BackfillNone, BackfillEasy, BackfillConservative)
	checkOneOf(&p, "preempt.within", q.Preempt.Within, "", PreemptNever, PreemptLower, PreemptLonger)
	if q.Preempt.Within == PreemptLonger && q.Order != OrderShortest {
		p.Add("preempt.within", "longer needs order shortest: else nobody knows who lasts longer")
	}
	checkOneOf(&p, "preempt.reclaim", q.Preempt.Reclaim, "", PreemptNever, PreemptLower, PreemptAny)
	checkOneOf(&p, "preempt.fair", q.Preempt.Fair, "", PreemptNever, PreemptLower, PreemptAny)
	checkDuration(&p, "min_runtime", q.MinRuntime, 0, maxMinRuntime)
	if q.HalfLife != 0 {
		checkDuration(&p, "half_life", q.HalfLife, minHalfLife, maxHalfLife)
		if q.Parent != "" {
			p.Add("half_life", "it holds for everything below the root's child: set it there")
		}
	}
	return p
}

func (q Queue) checkLend(p *Problems) {
	for _, limit := range q.Lend {
		if _, named := q.Guarantee.Of(limit.Resource); !named {
			p.Add("lend."+limit.Resource, "nothing of it is guaranteed: there is nothing to lend or withhold")
		}
	}
}
