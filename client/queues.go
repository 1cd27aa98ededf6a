package client

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
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
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, attempt int) (*claryv1.EditQueuesResponse, error) {
		response, err := claryv1.NewQueuesClient(conn).Edit(ctx, request)
		told := wire.FromStatus(err)
		if attempt > 1 && !edit.DryRun && !edit.Replace && (fault.Is(told, fault.Conflict) || fault.Is(told, fault.NotFound)) {
			return made(ctx, claryv1.NewQueuesClient(conn), request, err)
		}
		return response, err
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

// made answers for an edit that was refused when it was asked again: if the queues are as it wants them, an earlier attempt
// did it, and its answer was lost. How those were that it changed is not known any more.
func made(ctx context.Context, queues claryv1.QueuesClient, request *claryv1.EditQueuesRequest, refusal error) (*claryv1.EditQueuesResponse, error) {
	list, err := queues.List(ctx, &claryv1.ListQueuesRequest{})
	if err != nil {
		return nil, err
	}
	there := map[string]*claryv1.Queue{}
	for _, view := range list.GetQueues() {
		there[view.GetQueue().GetName()] = view.GetQueue()
	}
	answer := &claryv1.EditQueuesResponse{}
	for _, put := range request.GetPut() {
		found := there[put.GetName()]
		wanted := proto.CloneOf(put)
		wanted.Revision = found.GetRevision()
		if found == nil || !proto.Equal(found, wanted) {
			return nil, refusal
		}
		change := &claryv1.QueueChange{After: found}
		if !request.GetCreate() {
			change.Before = found
		}
		answer.Changes = append(answer.Changes, change)
	}
	for _, name := range request.GetDelete() {
		if there[name] != nil {
			return nil, refusal
		}
		answer.Changes = append(answer.Changes, &claryv1.QueueChange{Before: &claryv1.Queue{Name: name}})
	}
	return answer, nil
}
