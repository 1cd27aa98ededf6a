package cluster

// Claim is what a task holds of a queue.
type Claim struct {
	Queue string
	Owner string
	Amount
}

// QueueUsage is what the unended tasks that were placed for a queue hold together, and what it held
// of late. It belongs to the ledger: it moves in the entry that places a task or ends it.
type QueueUsage struct {
	Queue   string
	Used    Amount
	Running int32        // jobs that hold something
	Owners  []OwnerUsage // by name
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
