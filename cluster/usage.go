package cluster

// Claim is what a task holds of a queue.
type Claim struct {
	Queue string
	Owner string
	Firm  bool // it is of a job that nobody may preempt
	Amount
}

// QueueUsage is what the unended tasks that were placed for a queue hold together, and what it held
// of late. It belongs to the ledger: it moves in the entry that places a task or ends it.
type QueueUsage struct {
	Queue   string
	Used    Amount
	Running int32        // jobs that hold something
	Owners  []OwnerUsage // by name
	Firm    Amount       // of Used, what jobs hold that nobody may preempt
	// Mean is what was held in the past, decayed: scheduler/share.History says how. At is its instant.
	Mean     Amount
	At       int64
	Revision uint64
}

// OwnerUsage is what one owner of jobs holds of a queue.
type OwnerUsage struct {
	Owner   string
	Used    Amount
	Running int32
}

// QueueView is a queue with what it and all below it hold, as people are shown it.
type QueueView struct {
	Queue     Queue
	TakesJobs bool // none is below it
	Used      Amount
	Beyond    Amount  // of it, what is more than its guarantee: what it has borrowed
	Mean      Amount  // what was held of late, if the past counts
	Share     float64 // of the cluster beyond its guarantee, over its weight: the least is served next
	Running   int32   // jobs
	Waiting   int64
	Owners    []OwnerUsage // who hold something of this very queue
}
