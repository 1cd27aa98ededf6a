// Package drainer empties nodes that are drained: a loop on the leader that has move what loses nothing
// by it, and ends the rest, with its grace, when the node's deadline has come. What it has decided is in the
// log as any other move is: a new leader goes on from there.
package drainer

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// Ledger is what the drainer needs of the replicated state.
type Ledger interface {
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
}

// View is what is read of a node.
type View interface {
	TasksOn(node string) iter.Seq[cluster.Task]
	Gang(id string) (cluster.Gang, bool)
}

// every is how often nodes are looked at.
const every = time.Second

// Drainer is the loop.
type Drainer struct {
	ledger Ledger
	nodes  func() []cluster.Node
	log    *slog.Logger
	// Now is the time that deadlines go by; New has the wall clock's.
	Now func() time.Time
}

// New makes a drainer; nodes lists all nodes as they are now.
func New(ledger Ledger, nodes func() []cluster.Node, log *slog.Logger) *Drainer {
	return &Drainer{ledger: ledger, nodes: nodes, log: log, Now: time.Now}
}

// Run empties nodes until ctx ends. It runs on the leader only.
func (d *Drainer) Run(ctx context.Context) error {
	clock := time.NewTicker(every)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.C:
		}
		for _, node := range d.nodes() {
			if node.State == cluster.NodeDraining && node.Empties {
				if err := d.look(ctx, node); err != nil && ctx.Err() == nil {
					d.log.Info("a drained node is looked at again", "node", node.ID, "error", err)
				}
			}
		}
	}
}

// look has move what may.
func (d *Drainer) look(ctx context.Context, node cluster.Node) error {
	snapshot, err := d.ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	changes := Step(snapshot, node, d.Now().UnixNano())
	snapshot.Close()
	if len(changes) == 0 {
		return nil
	}
	_, err = d.ledger.Propose(ctx, command.Record{Changes: changes})
	if fault.Is(err, fault.Conflict) {
		return nil // something of them has just changed: it is read again
	}
	if err == nil {
		d.log.Info("gangs leave a drained node", "node", node.ID, "gangs", len(changes))
	}
	return err
}

// Step decides what leaves a node that empties: what loses nothing by it, and everything once the
// deadline has come.
func Step(view View, node cluster.Node, now int64) []command.Change {
	late := node.Deadline != 0 && now >= node.Deadline
	return Move(view, node.ID, "node "+node.ID+" is drained: "+node.Reason, func(gang cluster.Gang, here []cluster.Task) (leaves, now bool) {
		return late || Moves(gang, here), late
	})
}

// Moves reports whether a gang loses nothing, or next to it, when it begins again elsewhere: another takes
// over from it first, or none of its tasks here has begun, or all its roles go on from checkpoints. One
// that may not be preempted is never moved before a deadline.
func Moves(gang cluster.Gang, here []cluster.Task) bool {
	if gang.Handover {
		return true
	}
	if gang.NonPreemptible {
		return false
	}
	began := false
	for _, task := range here {
		if task.Status.State == cluster.TaskUploading { // it is nearly done
			return false
		}
		began = began || task.Status.State == cluster.TaskRunning
	}
	if !began {
		return true
	}
	for _, role := range gang.Roles {
		if !role.Program.Checkpoints && !role.Program.Service {
			return false
		}
	}
	return true
}

// Move has gangs with tasks on a node end, with their grace, and begin again elsewhere; of those that are
// handed over another begins first, unless they are to leave now: for that one there may be no room. A node that is draining
// gets no new tasks, so those that are there now are all.
func Move(view View, node, reason string, may func(cluster.Gang, []cluster.Task) (leaves, now bool)) []command.Change {
	here := map[string][]cluster.Task{}
	var order []string
	for task := range view.TasksOn(node) {
		if task.Status.State.Ended() {
			continue
		}
		if here[task.Gang] == nil {
			order = append(order, task.Gang)
		}
		here[task.Gang] = append(here[task.Gang], task)
	}
	var changes []command.Change
	for _, id := range order {
		gang, ok := view.Gang(id)
		if !ok || gang.Stop || gang.Attempt != here[id][0].Attempt || len(changes) == command.MaxChanges {
			continue
		}
		leaves, now := may(gang, here[id])
		if !leaves || gang.Moves && !now {
			continue
		}
		gang.Stop, gang.StopReason, gang.Moves = now || !gang.Handover, cluster.Clip(reason), true
		changes = append(changes, command.Change{Gang: &gang, Expect: gang.Revision})
	}
	return changes
}
