package command

import (
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// Apply implements Command. A node that shrinks below what its tasks hold keeps them,
// and has nothing free.
func (c PutNode) Apply(tx *state.Tx, now int64) (Result, error) {
	node := c.Node
	old, existed := tx.Node(node.ID)
	node.State, node.Reason, node.Joined, node.Seen, node.Taints = cluster.NodeReady, "", now, now, nil
	node.Empties, node.Deadline = false, 0
	if existed {
		node.Joined, node.Taints = old.Joined, old.Taints
	}
	if existed && old.State == cluster.NodeDraining {
		node.State, node.Reason, node.Empties, node.Deadline = old.State, old.Reason, old.Empties, old.Deadline
	}
	if err := invalid(state.KindNode, node.ID, node.Validate()); err != nil {
		return Result{}, err
	}
	if revoked, ok := tx.Trust().Revocation(cluster.RoleAgent, node.ID); ok && revoked.Refuses(node.Key) {
		return Result{}, fault.New(fault.Denied, "node %q was revoked by %s: %s", node.ID, revoked.By, revoked.Reason)
	}
	tx.PutNode(node)
	return Result{}, nil
}

// Apply implements Command.
func (c SetNodeState) Apply(tx *state.Tx, now int64) (Result, error) {
	node, exists := tx.Node(c.Node)
	switch {
	case !exists:
		return Result{}, noNode(c.Node)
	case c.Expect != 0 && c.Expect != node.Revision:
		return Result{}, fault.New(fault.Conflict, "node %q is at revision %d, not %d: read it again", node.ID, node.Revision, c.Expect)
	case len(c.Reason) > MaxReason:
		return Result{}, fault.New(fault.Invalid, "node %q: reason: %d bytes: at most %d", node.ID, len(c.Reason), MaxReason)
	case c.State != cluster.NodeDraining && (c.Empties || c.Deadline != 0), c.Deadline != 0 && !c.Empties, c.Deadline < 0:
		return Result{}, fault.New(fault.Invalid, "node %q: deadline: %d: only a node that is drained and emptied has one", node.ID, c.Deadline)
	case node.State == c.State && node.Reason == c.Reason && node.Empties == c.Empties && node.Deadline == c.Deadline:
		return Result{}, nil
	case node.State == cluster.NodeLost && c.State != cluster.NodeLost:
		return Result{}, fault.New(fault.Conflict, "node %q is lost: it comes back when its agent does", node.ID)
	case node.State != c.State && !node.State.CanBecome(c.State):
		return Result{}, fault.New(fault.Conflict, "node %q: state: %s cannot become %q", node.ID, node.State, cluster.Clip(string(c.State)))
	}
	node.State, node.Reason, node.Empties, node.Deadline = c.State, c.Reason, c.Empties, c.Deadline
	tx.PutNode(node)
	if c.State == cluster.NodeLost {
		loseTasks(tx, node, now)
	}
	return Result{}, nil
}

// Apply implements Command.
func (c SetNodeTaints) Apply(tx *state.Tx, _ int64) (Result, error) {
	node, exists := tx.Node(c.Node)
	switch {
	case !exists:
		return Result{}, noNode(c.Node)
	case c.Expect != 0 && c.Expect != node.Revision:
		return Result{}, fault.New(fault.Conflict, "node %q is at revision %d, not %d: read it again", node.ID, node.Revision, c.Expect)
	}
	taints := slices.SortedFunc(slices.Values(c.Taints), cluster.CompareTaints)
	if slices.Equal(taints, node.Taints) {
		return Result{}, nil
	}
	node.Taints = taints
	problems := node.Validate()
	if len(taints) != len(slices.CompactFunc(slices.Clone(taints), func(a, b cluster.Taint) bool { return cluster.CompareTaints(a, b) == 0 })) {
		problems.Add("taints", "two of one key and effect: a node has one")
	}
	if err := invalid(state.KindNode, node.ID, problems); err != nil {
		return Result{}, err
	}
	tx.PutNode(node)
	return Result{}, nil
}

// Apply implements Command.
func (c SetNodeCached) Apply(tx *state.Tx, _ int64) (Result, error) {
	node, exists := tx.Node(c.Node)
	if !exists {
		return Result{}, noNode(c.Node)
	}
	if slices.Equal(c.Cached, node.Cached) {
		return Result{}, nil
	}
	node.Cached = c.Cached
	if err := invalid(state.KindNode, node.ID, node.Validate()); err != nil {
		return Result{}, err
	}
	tx.PutNode(node)
	return Result{}, nil
}

// loseTasks ends every task of a node without knowing how it ended.
func loseTasks(tx *state.Tx, node cluster.Node, now int64) {
	for task := range tx.TasksOn(node.ID) {
		task.Status.State = cluster.TaskLost
		task.Status.Reason = "node " + node.ID + " is lost"
		if node.Reason != "" {
			task.Status.Reason += ": " + node.Reason
		}
		task.Status.Ended = now
		tx.PutTask(task)
	}
}

// Apply implements Command.
func (c RemoveNode) Apply(tx *state.Tx, _ int64) (Result, error) {
	node, exists := tx.Node(c.Node)
	if !exists {
		return Result{}, noNode(c.Node)
	}
	if node.State != cluster.NodeLost {
		return Result{}, fault.New(fault.Conflict, "node %q is %s: stop its agent, and remove it when it is lost", node.ID, node.State)
	}
	for task := range tx.TasksOn(node.ID) {
		return Result{}, fault.New(fault.Conflict, "node %q: its task %s is %s", node.ID, task.ID, task.Status.State)
	}
	tx.DeleteNode(node.ID)
	return Result{}, nil
}

func noNode(id string) error {
	return fault.New(fault.NotFound, "node %q does not exist: clary nodes shows those that do", cluster.Clip(id))
}
