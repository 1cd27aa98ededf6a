package client

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// NodeView is a node with what its tasks hold.
type NodeView struct {
	Node  cluster.Node
	Used  cluster.Resources
	Tasks []string // IDs
}

// ReadOption says how fresh an answer must be.
type ReadOption bool

// Stale takes what the coordinator that is asked has itself: at once, even while there is
// no leader, and perhaps a moment old. Without it a read shows everything that was
// acknowledged before it.
const Stale ReadOption = true

func stale(options []ReadOption) bool { return slices.Contains(options, Stale) }

// Nodes lists all nodes.
func (c *Client) Nodes(ctx context.Context, options ...ReadOption) ([]NodeView, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListNodesResponse, error) {
		return claryv1.NewNodesClient(conn).List(ctx, &claryv1.ListNodesRequest{Stale: stale(options)})
	})
	return each(response.GetNodes(), nodeViewOf), err
}

// Node reads one node.
func (c *Client) Node(ctx context.Context, id string, options ...ReadOption) (NodeView, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.NodeView, error) {
		return claryv1.NewNodesClient(conn).Get(ctx, &claryv1.GetNodeRequest{Id: id, Stale: stale(options)})
	})
	if err != nil {
		return NodeView{}, err
	}
	return nodeViewOf(response), nil
}

// Drain keeps new tasks away from a node; what runs there goes on.
func (c *Client) Drain(ctx context.Context, id, reason string) (cluster.Node, error) {
	return c.drain(ctx, &claryv1.DrainNodeRequest{Id: id, Reason: reason})
}

// DrainBy is Drain, and what runs on the node and loses nothing by it starts again elsewhere. The rest does so, with
// its grace, at the deadline; with the zero time it is waited for.
func (c *Client) DrainBy(ctx context.Context, id, reason string, deadline time.Time) (cluster.Node, error) {
	return c.drain(ctx, &claryv1.DrainNodeRequest{Id: id, Reason: reason, Empty: true, Deadline: nanos(deadline)})
}

// Empty is Drain, and what runs on the node is asked to end, with its grace, and starts again
// elsewhere from its checkpoints. It does not wait for that.
func (c *Client) Empty(ctx context.Context, id, reason string) (cluster.Node, error) {
	return c.drain(ctx, &claryv1.DrainNodeRequest{Id: id, Reason: reason, Move: true})
}

func (c *Client) drain(ctx context.Context, request *claryv1.DrainNodeRequest) (cluster.Node, error) {
	return nodeOf(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.Node, error) {
		return claryv1.NewNodesClient(conn).Drain(ctx, request)
	}))
}

// Resume takes a node back after Drain.
func (c *Client) Resume(ctx context.Context, id string) (cluster.Node, error) {
	return nodeOf(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.Node, error) {
		return claryv1.NewNodesClient(conn).Resume(ctx, &claryv1.ResumeNodeRequest{Id: id})
	}))
}

// Taint puts taints on a node after it took back all of the keys in remove; a taint of the same key and
// effect is replaced.
func (c *Client) Taint(ctx context.Context, id string, put []cluster.Taint, remove []string) (cluster.Node, error) {
	request := &claryv1.TaintNodeRequest{Id: id, Remove: remove}
	for _, taint := range put {
		request.Put = append(request.Put, wire.TaintToProto(taint))
	}
	return nodeOf(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.Node, error) {
		return claryv1.NewNodesClient(conn).Taint(ctx, request)
	}))
}

// RemoveNode forgets a lost node for good.
func (c *Client) RemoveNode(ctx context.Context, id string) error {
	_, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, attempt int) (*claryv1.RemoveNodeResponse, error) {
		response, err := claryv1.NewNodesClient(conn).Remove(ctx, &claryv1.RemoveNodeRequest{Id: id})
		if attempt > 1 && fault.Is(wire.FromStatus(err), fault.NotFound) {
			return nil, nil // an earlier attempt did it, and its answer was lost
		}
		return response, err
	})
	return err
}

func nodeOf(response *claryv1.Node, err error) (cluster.Node, error) {
	if err != nil {
		return cluster.Node{}, err
	}
	return wire.NodeFromProto(response), nil
}

func nodeViewOf(response *claryv1.NodeView) NodeView {
	return NodeView{
		Node: wire.NodeFromProto(response.GetNode()), Used: wire.ResourcesFromProto(response.GetUsed()),
		Tasks: response.GetTasks(),
	}
}
