package rpc

import (
	"context"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/drainer"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// nodes serves what operators do with nodes.
type nodes struct {
	claryv1.UnimplementedNodesServer
	replica Replica
}

func (s *nodes) List(ctx context.Context, request *claryv1.ListNodesRequest) (*claryv1.ListNodesResponse, error) {
	snapshot, err := s.replica.Read(ctx, request.GetStale())
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	answer := &claryv1.ListNodesResponse{}
	for node := range snapshot.Nodes() {
		answer.Nodes = append(answer.Nodes, nodeView(snapshot, node))
	}
	return answer, nil
}

func (s *nodes) Get(ctx context.Context, request *claryv1.GetNodeRequest) (*claryv1.NodeView, error) {
	snapshot, err := s.replica.Read(ctx, request.GetStale())
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	node, ok := snapshot.Node(request.GetId())
	if !ok {
		return nil, noNode(request.GetId())
	}
	return nodeView(snapshot, node), nil
}

func nodeView(snapshot *state.Snapshot, node cluster.Node) *claryv1.NodeView {
	answer := &claryv1.NodeView{Node: wire.NodeToProto(node), Used: wire.ResourcesToProto(snapshot.Used(node.ID))}
	for task := range snapshot.TasksOn(node.ID) {
		if !task.Status.State.Ended() {
			answer.Tasks = append(answer.Tasks, task.ID)
		}
	}
	return answer
}

func noNode(id string) error {
	return fault.New(fault.NotFound, "id: node %q does not exist: clary nodes shows those that do", cluster.Clip(id))
}

func (s *nodes) Drain(ctx context.Context, request *claryv1.DrainNodeRequest) (*claryv1.Node, error) {
	reason := request.GetReason()
	if reason == "" && request.GetEmpty() {
		reason = "drained by " + caller(ctx).Name
	} else if reason == "" {
		reason = "cordoned by " + caller(ctx).Name
	}
	if request.GetDeadline() < 0 || request.GetDeadline() != 0 && !request.GetEmpty() {
		return nil, fault.New(fault.Invalid, "deadline: %d: it is Unix nanoseconds, and of a node that is emptied", request.GetDeadline())
	}
	node, err := s.set(ctx, command.SetNodeState{
		Node: request.GetId(), State: cluster.NodeDraining, Reason: reason, Empties: request.GetEmpty(), Deadline: request.GetDeadline(),
	})
	if err != nil || !request.GetMove() {
		return node, err
	}
	return node, s.move(ctx, request.GetId(), "node "+request.GetId()+" is drained: "+reason)
}

// move has every gang with tasks on a node end, with its grace, and begin again; of those that are
// handed over another begins first. A node that is draining gets no new tasks, so those that are there
// now are all.
func (s *nodes) move(ctx context.Context, id, reason string) error {
	for {
		snapshot, err := s.replica.Read(ctx, false)
		if err != nil {
			return err
		}
		changes := drainer.Move(snapshot, id, reason, func(cluster.Gang, []cluster.Task) (leaves, now bool) { return true, false })
		snapshot.Close()
		if len(changes) == 0 {
			return nil
		}
		_, err = s.replica.Propose(ctx, command.Record{Changes: changes})
		if err != nil && (!fault.Is(err, fault.Conflict) || ctx.Err() != nil) {
			return err
		}
	}
}

func (s *nodes) Resume(ctx context.Context, request *claryv1.ResumeNodeRequest) (*claryv1.Node, error) {
	return s.set(ctx, command.SetNodeState{Node: request.GetId(), State: cluster.NodeReady})
}

// set moves a node to a state that an operator may choose. Asking for the state it is
// in already is no mistake.
func (s *nodes) set(ctx context.Context, next command.SetNodeState) (*claryv1.Node, error) {
	for {
		node, err := s.read(ctx, next.Node)
		if err != nil {
			return nil, err
		}
		if node.State == next.State && node.Empties == next.Empties && node.Deadline == next.Deadline {
			return wire.NodeToProto(node), nil
		}
		if node.State == cluster.NodeLost {
			return nil, fault.New(fault.Conflict, "node %s is lost (%s): start its agent, or remove it", node.ID, node.Reason)
		}
		next.Expect = node.Revision
		_, err = s.replica.Propose(ctx, next)
		if err != nil && (!fault.Is(err, fault.Conflict) || ctx.Err() != nil) {
			return nil, err
		}
	}
}

func (s *nodes) read(ctx context.Context, id string) (cluster.Node, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return cluster.Node{}, err
	}
	defer snapshot.Close()
	node, ok := snapshot.Node(id)
	if !ok {
		return node, noNode(id)
	}
	return node, nil
}

// Taint takes taints back and puts others; another change of the node in between is no harm.
func (s *nodes) Taint(ctx context.Context, request *claryv1.TaintNodeRequest) (*claryv1.Node, error) {
	for {
		node, err := s.read(ctx, request.GetId())
		if err != nil {
			return nil, err
		}
		taints := cluster.ChangeTaints(node.Taints, taintsOf(request), request.GetRemove())
		if slices.Equal(taints, node.Taints) {
			return wire.NodeToProto(node), nil
		}
		_, err = s.replica.Propose(ctx, command.SetNodeTaints{Node: node.ID, Taints: taints, Expect: node.Revision})
		if err != nil && (!fault.Is(err, fault.Conflict) || ctx.Err() != nil) {
			return nil, err
		}
	}
}

func taintsOf(request *claryv1.TaintNodeRequest) []cluster.Taint {
	var taints []cluster.Taint
	for _, t := range request.GetPut() {
		taints = append(taints, wire.TaintFromProto(t))
	}
	return taints
}

func (s *nodes) Remove(ctx context.Context, request *claryv1.RemoveNodeRequest) (*claryv1.RemoveNodeResponse, error) {
	if _, err := s.replica.Propose(ctx, command.RemoveNode{Node: request.GetId()}); err != nil {
		return nil, err
	}
	return &claryv1.RemoveNodeResponse{}, nil
}
