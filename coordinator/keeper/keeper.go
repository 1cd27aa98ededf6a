// Package keeper decides on the leader which nodes are lost. An agent beats at any
// coordinator; coordinators pass the beats on to the leader in batches; a node whose
// last beat is older than its lease is declared lost by a ledger command, and its
// tasks with it. Leases live in the leader's memory alone: a new leader cannot know
// when others last heard a node, so it grants every node one full lease first.
package keeper

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
)

// Ledger is what the keeper needs of the replicated state.
type Ledger interface {
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
}

// Nodes lists the nodes as they are now: every one, lost ones included.
type Nodes func() []cluster.Node

// Keeper holds the leases of all nodes while this coordinator leads.
type Keeper struct {
	ledger Ledger
	nodes  Nodes
	lease  time.Duration
	log    *slog.Logger

	mu     sync.Mutex
	leads  bool
	beaten map[string]time.Time // monotonic: when the node's newest beat came in
	looked time.Time            // when leases were last looked at
	// condemned are the nodes that are being declared lost, by the revision at which. Until it is certain what became of that
	// none of their beats counts: whoever beats may go on with what is given to others meanwhile.
	condemned map[string]uint64
}

// New makes a keeper that gives leases of the length cluster.LeaseTime.
func New(ledger Ledger, nodes Nodes, log *slog.Logger) *Keeper {
	return &Keeper{ledger: ledger, nodes: nodes, lease: cluster.LeaseTime, log: log}
}

// Beat renews the leases of nodes and returns those that must introduce themselves
// again, because they are unknown or were declared lost. It answers Unready where this
// coordinator does not lead.
func (k *Keeper) Beat(nodes []string) (unknown []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	alive := map[string]bool{}
	for _, node := range k.nodes() { // with the lock: none is condemned after it was found alive
		alive[node.ID] = node.State != cluster.NodeLost && !k.isCondemned(node)
	}
	if !k.leads {
		return nil, fault.New(fault.Unready, "this coordinator does not lead")
	}
	now := time.Now()
	for _, id := range nodes {
		if !alive[id] {
			unknown = append(unknown, id)
			continue
		}
		k.beaten[id] = now
	}
	return unknown, nil
}

// Run keeps leases until ctx ends. It runs on the leader only.
func (k *Keeper) Run(ctx context.Context) error {
	k.begin()
	defer k.end()
	ticker := time.NewTicker(k.lease / 10)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			k.expire(ctx)
		}
	}
}

func (k *Keeper) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leads, k.beaten, k.condemned = true, map[string]time.Time{}, map[string]uint64{}
	now := time.Now()
	k.looked = now
	for _, node := range k.nodes() {
		if node.State != cluster.NodeLost {
			k.beaten[node.ID] = now
		}
	}
}

func (k *Keeper) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leads, k.beaten, k.condemned = false, nil, nil
}

// expire declares lost every node whose lease ran out, and forgets the leases of
// nodes that are lost already.
func (k *Keeper) expire(ctx context.Context) {
	for _, node := range k.overdue() {
		reason := fmt.Sprintf("no word from its agent for %s", k.lease)
		_, err := k.ledger.Propose(ctx, command.SetNodeState{Node: node.ID, State: cluster.NodeLost, Reason: reason, Expect: node.Revision})
		if err != nil && !fault.Is(err, fault.Unready) { // it is certain that it is not
			k.acquit(node.ID)
		}
		switch {
		case err == nil:
			k.log.Warn("node lost", "node", node.ID, "reason", reason)
		case ctx.Err() == nil:
			k.log.Info("node could not be declared lost, will try again", "node", node.ID, "error", err)
		}
	}
}

// isCondemned reports whether a node is being declared lost. One that has another revision is lost by now, or has been changed, so
// that it was not. It is called with the lock.
func (k *Keeper) isCondemned(node cluster.Node) bool {
	at, condemned := k.condemned[node.ID]
	if condemned && at != node.Revision {
		delete(k.condemned, node.ID)
		return false
	}
	return condemned
}

func (k *Keeper) acquit(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.condemned, id)
}

// overdue returns the nodes to declare lost, by id, and condemns them.
func (k *Keeper) overdue() []cluster.Node {
	k.mu.Lock()
	defer k.mu.Unlock()
	nodes := k.nodes()
	var overdue []cluster.Node
	now := time.Now()
	asleep := now.Sub(k.looked) > k.lease/2
	if k.looked = now; asleep { // this process stood still and heard nobody: nobody is to blame
		clear(k.beaten)
	}
	for _, node := range nodes {
		if node.State == cluster.NodeLost {
			delete(k.beaten, node.ID)
			delete(k.condemned, node.ID)
			continue
		}
		beaten, known := k.beaten[node.ID]
		if !known && !k.isCondemned(node) { // introduced through another coordinator
			k.beaten[node.ID] = now
			continue
		}
		if now.Sub(beaten) > k.lease || k.isCondemned(node) {
			k.condemned[node.ID] = node.Revision
			overdue = append(overdue, node)
		}
	}
	slices.SortFunc(overdue, func(a, b cluster.Node) int { return cmp.Compare(a.ID, b.ID) })
	return overdue
}
