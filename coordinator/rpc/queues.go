package rpc

import (
	"context"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/scheduler/share"
)

// queues serves the tree of shares.
type queues struct {
	claryv1.UnimplementedQueuesServer
	replica Replica
}

// List shows every queue with what it holds.
func (s *queues) List(ctx context.Context, request *claryv1.ListQueuesRequest) (*claryv1.ListQueuesResponse, error) {
	snapshot, err := s.replica.Read(ctx, request.GetStale())
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	tree := snapshot.Shares(time.Now().UnixNano())
	waiting := map[string]int64{} // with all below: children come after their parents
	all := tree.Queues()
	for _, queue := range slices.Backward(all) {
		_, own := snapshot.QueueJobs(queue.Name)
		waiting[queue.Name] += own
		waiting[queue.Parent] += waiting[queue.Name]
	}
	answer := &claryv1.ListQueuesResponse{Capacity: wire.AmountToProto(tree.Capacity())}
	for _, queue := range all {
		answer.Queues = append(answer.Queues, wire.QueueViewToProto(tree.View(queue.Name, waiting[queue.Name])))
	}
	return answer, nil
}

// Edit changes the tree in one record, so all of it or nothing.
func (s *queues) Edit(ctx context.Context, request *claryv1.EditQueuesRequest) (*claryv1.EditQueuesResponse, error) {
	edit := share.Edit{Delete: request.GetDelete(), Replace: request.GetReplace(), Create: request.GetCreate()}
	for _, queue := range request.GetPut() {
		edit.Put = append(edit.Put, wire.QueueFromProto(queue))
	}
	if n := len(edit.Put) + len(edit.Delete); n == 0 && !edit.Replace || n > cluster.MaxQueues {
		return nil, fault.New(fault.Invalid, "put: %d queues to put or delete: from 1 to %d", n, cluster.MaxQueues)
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	changes, err := edit.Of(slices.Collect(snapshot.Queues()))
	snapshot.Close()
	if err != nil {
		return nil, err
	}
	answer := &claryv1.EditQueuesResponse{}
	var record command.Record
	for _, change := range changes {
		told := &claryv1.QueueChange{}
		put := command.Change{Expect: change.Before.Revision}
		if change.Before.Name != "" {
			told.Before = wire.QueueToProto(change.Before)
		}
		if change.After.Name != "" {
			told.After = wire.QueueToProto(change.After)
			put.Queue = &change.After
		} else {
			put.Delete = &command.Key{Kind: state.KindQueue, ID: change.Before.Name}
		}
		record.Changes = append(record.Changes, put)
		answer.Changes = append(answer.Changes, told)
	}
	if n := len(record.Changes); n > command.MaxChanges {
		return nil, fault.New(fault.Invalid, "put: %d queues would change, and one edit changes %d at most: apply the file in parts, each with --keep",
			n, command.MaxChanges)
	}
	if len(record.Changes) == 0 || request.GetDryRun() {
		return answer, nil
	}
	_, err = s.replica.Propose(ctx, record)
	return answer, err
}
