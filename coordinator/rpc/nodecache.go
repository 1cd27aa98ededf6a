package rpc

import (
	"context"
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

// List returns the nodes as last seen. The list is not to be changed.
func (c *NodeCache) List() []cluster.Node {
	if nodes := c.nodes.Load(); nodes != nil {
		return *nodes
	}
	return nil
}

// Address returns where the agent of a node answers coordinators, "" if unknown.
func (c *NodeCache) Address(id string) string {
	for _, node := range c.List() {
		if node.ID == id {
			return node.LogsAddr
		}
	}
	return ""
}

// Run keeps the list until ctx ends.
func (c *NodeCache) Run(ctx context.Context) error {
	events := c.replica.Events().Subscribe(func(change state.Change) bool { return change.Kind == state.KindNode })
	defer events.Close()
	for {
		if err := c.refresh(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, open := <-events.C:
			if !open {
				return nil
			}
		}
	}
}

func (c *NodeCache) refresh(ctx context.Context) error {
	snapshot, err := c.replica.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	var nodes []cluster.Node
	for node := range snapshot.Nodes() {
		nodes = append(nodes, node)
	}
	c.nodes.Store(&nodes)
	return nil
}
