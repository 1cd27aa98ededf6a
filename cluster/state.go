package cluster

import "slices"

// edges is a state machine's table: from each state, the states that may follow.
type edges[S comparable] map[S][]S

func (e edges[S]) has(from, to S) bool { return slices.Contains(e[from], to) }
