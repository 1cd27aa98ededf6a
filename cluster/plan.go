package cluster

// Plan is what the scheduler proposes for one round.
type Plan struct {
	Placements []Placement
	Whys       []Why // one for every gang left waiting
}

// Placement puts a whole gang somewhere: one allocation for each of its tasks, in the
// order of its roles and their indexes.
type Placement struct {
	Gang        string // ID
	Attempt     int32
	Revision    uint64 // of the gang when it was planned
	Allocations []Allocation
}

// Why explains what a waiting gang waits for, and how short it is.
type Why struct {
	Gang     string
	Summary  string // one sentence
	Blocks   []Block
	Queue    string
	Place    int32 // in the queue's order, from 1; 0 where it has none
	Of       int32 // how many wait in the queue
	Expected int64 // when it is expected to start, 0 if nobody knows
}

// Block is one constraint and how many nodes it rules out, or one rule and whom it puts first.
type Block struct {
	Constraint string // cores, memory, gpus, ports, labels, state, held, backoff, gang
	Nodes      int32  // how many nodes it rules out
	Only       int32  // of them, nodes that nothing else rules out
	Missing    int64  // how short the nearest node is, in the constraint's unit
	Nearest    string // that node
	Text       string
	Gangs      []string // whom it waits for: those ahead of it, those that make room; not always all
	Until      int64    // when that is expected to be over, 0 if nobody knows
}
