package cluster

// Plan is what the scheduler proposes for one round.
type Plan struct {
	Placements []Placement
	Evictions  []Eviction
	Whys       []Why // one for every gang left waiting
}

// Placement puts a whole gang somewhere: one allocation for each of its tasks, in the
// order of its roles and their indexes.
type Placement struct {
	Gang        string // ID
	Attempt     int32
	Revision    uint64 // of the gang when it was planned
	Allocations []Allocation
	// Counts are how many tasks of each role it places, in the order of the roles, if a role is
	// elastic; nil is all of each.
	Counts []int32
}

// Eviction has a gang that runs end, with its grace, and begin again from its checkpoints: so that
// another gets its room, or to be of another size. It costs no retry.
type Eviction struct {
	Gang     string // ID
	Attempt  int32
	Revision uint64 // of the gang when it was planned
	For      string // ID of the gang that gets the room; its own where it grows
	Reason   string // "preempted by vision/big", "grows to 8 workers", "shrinks to 4 for vision/big"
	// Counts are how many tasks of each role it goes on with, in the order of the roles, if it is
	// resized; nil where it ends as a whole and waits like others.
	Counts []int32
}

// Resizes reports whether the gang goes on at once, with other numbers of tasks.
func (e Eviction) Resizes() bool { return len(e.Counts) > 0 }

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
	Constraint string // cores, memory, gpus, shares, slots, ports, labels, constraints, taints, affinity, topology, state, held, backoff, gang
	Nodes      int32  // how many nodes it rules out
	Only       int32  // of them, nodes that nothing else rules out
	Missing    int64  // how short the nearest node is, in the constraint's unit
	Nearest    string // that node
	Text       string
	Gangs      []string // whom it waits for: those ahead of it, those that make room; not always all
	Until      int64    // when that is expected to be over, 0 if nobody knows
}
