package client

import (
	"context"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Queues lists the queues with what they hold, parents before those below them, and what the cluster has.
// Stale asks any coordinator for what it knows, which may be a moment old.
func (c *Client) Queues(ctx context.Context, stale bool) ([]cluster.QueueView, cluster.Amount, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListQueuesResponse, error) {
		return claryv1.NewQueuesClient(conn).List(ctx, &claryv1.ListQueuesRequest{Stale: stale})
	})
	return each(response.GetQueues(), wire.QueueViewFromProto), wire.AmountFromProto(response.GetCapacity()), err
}

// QueueEdit is a change of the tree of queues: all of it is made, or nothing.
type QueueEdit struct {
	Put     []cluster.Queue // a revision that is not 0 must be the queue's
	Delete  []string
	Replace bool // delete all that are not put, but for the default queue
	Create  bool // none of those put may exist
	DryRun  bool // only say what would change
}

// QueueChange is what an edit does to one queue. A queue that is made has no name before, one that is
// deleted none after.
type QueueChange struct{ Before, After cluster.Queue }

// EditQueues changes the tree of queues and tells what has changed.
func (c *Client) EditQueues(ctx context.Context, edit QueueEdit) ([]QueueChange, error) {
	request := &claryv1.EditQueuesRequest{Delete: edit.Delete, Replace: edit.Replace, Create: edit.Create, DryRun: edit.DryRun}
	for _, queue := range edit.Put {
		request.Put = append(request.Put, wire.QueueToProto(queue))
	}
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.EditQueuesResponse, error) {
		return claryv1.NewQueuesClient(conn).Edit(ctx, request)
	})
	return each(response.GetChanges(), func(change *claryv1.QueueChange) QueueChange {
		var made QueueChange
		if change.GetBefore() != nil {
			made.Before = wire.QueueFromProto(change.GetBefore())
		}
		if change.GetAfter() != nil {
			made.After = wire.QueueFromProto(change.GetAfter())
		}
		return made
	}), err
}
