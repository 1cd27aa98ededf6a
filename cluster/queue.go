package cluster

// Queue is a tenant's place in the tree of shares.
type Queue struct {
	Name     string
	Parent   string // empty for a child of the root
	Weight   int32
	Revision uint64
}

// Validate reports every mistake in the queue.
func (q Queue) Validate() Problems {
	var p Problems
	CheckName(&p, "name", q.Name)
	if q.Parent != "" {
		CheckName(&p, "parent", q.Parent)
	}
	checkRange(&p, "weight", int64(q.Weight), 1, 1_000_000)
	return p
}
