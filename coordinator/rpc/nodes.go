package rpc

import (
	"context"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
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
	return fault.New(fault.NotFound, "id: there is no node %q: see clary nodes", cluster.Clip(id))
}

func (s *nodes) Drain(ctx context.Context, request *claryv1.DrainNodeRequest) (*claryv1.Node, error) {
	reason := request.GetReason()
	if reason == "" {
		reason = "drained by " + caller(ctx).Name
	}
	return s.set(ctx, request.GetId(), cluster.NodeDraining, reason)
}

func (s *nodes) Resume(ctx context.Context, request *claryv1.ResumeNodeRequest) (*claryv1.Node, error) {
	return s.set(ctx, request.GetId(), cluster.NodeReady, "")
}

// set moves a node to a state that an operator may choose. Asking for the state it is
// in already is no mistake.
func (s *nodes) set(ctx context.Context, id string, next cluster.NodeState, reason string) (*claryv1.Node, error) {
	for {
		node, err := s.read(ctx, id)
		if err != nil {
			return nil, err
		}
		if node.State == next {
			return wire.NodeToProto(node), nil
		}
		if node.State == cluster.NodeLost {
			return nil, fault.New(fault.Conflict, "node %s is lost (%s): start its agent, or remove it", id, node.Reason)
		}
		_, err = s.replica.Propose(ctx, command.SetNodeState{Node: id, State: next, Reason: reason, Expect: node.Revision})
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

func (s *nodes) Remove(ctx context.Context, request *claryv1.RemoveNodeRequest) (*claryv1.RemoveNodeResponse, error) {
	if _, err := s.replica.Propose(ctx, command.RemoveNode{Node: request.GetId()}); err != nil {
		return nil, err
	}
	return &claryv1.RemoveNodeResponse{}, nil
}
