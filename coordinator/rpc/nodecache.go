package rpc

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
)

// NodeCache is the list of nodes for questions asked at every submission. It follows
// events, so it may be a moment behind; what must be right is checked again in Apply.
type NodeCache struct {
	replica Replica
	nodes   atomic.Pointer[[]cluster.Node]
}

// NewNodeCache makes an empty cache; Run fills it.
func NewNodeCache(replica Replica) *NodeCache { return &NodeCache{replica: replica} }

// List returns the nodes as last seen, by ID. The list is not to be changed.
func (c *NodeCache) List() []cluster.Node {
	if nodes := c.nodes.Load(); nodes != nil {
		return *nodes
	}
	return nil
}

// Address returns where the agent of a node answers coordinators, "" if unknown.
func (c *NodeCache) Address(id string) string {
	nodes := c.List()
	at, found := slices.BinarySearchFunc(nodes, id, func(n cluster.Node, id string) int { return cmp.Compare(n.ID, id) })
	if !found {
		return ""
	}
	return nodes[at].LogsAddr
}

// Run keeps the list until ctx ends.
func (c *NodeCache) Run(ctx context.Context) error {
	events := c.replica.Events().Subscribe(func(change state.Change) bool { return change.Kind == state.KindNode })
	defer events.Close()
	known, changed, all := map[string]cluster.Node{}, map[string]bool{}, true
	for {
		if err := c.refresh(ctx, known, changed, all); err != nil {
			return err
		}
		clear(changed)
		all = false
		for first := true; first || len(events.C) > 0; first = false { // those that came meanwhile cost one list
			select {
			case <-ctx.Done():
				return ctx.Err()
			case batch, open := <-events.C:
				if !open {
					return nil
				}
				all = all || batch.Lost
				for _, change := range batch.Changes {
					changed[change.ID] = true
				}
			}
		}
	}
}

// refresh reads the nodes that have changed, or all, and makes the list anew.
func (c *NodeCache) refresh(ctx context.Context, known map[string]cluster.Node, changed map[string]bool, all bool) error {
	snapshot, err := c.replica.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	if all {
		clear(known)
		for node := range snapshot.Nodes() {
			known[node.ID] = node
		}
	}
	for id := range changed {
		if node, exists := snapshot.Node(id); exists {
			known[id] = node
		} else {
			delete(known, id)
		}
	}
	nodes := slices.SortedFunc(maps.Values(known), func(a, b cluster.Node) int { return cmp.Compare(a.ID, b.ID) })
	c.nodes.Store(&nodes)
	return nil
}
