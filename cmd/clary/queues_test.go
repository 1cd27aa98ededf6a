package main

import (
	"context"
	"slices"
	"sync"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/scheduler/share"
)

// queues keeps a tree of queues as a cluster does, but for its jobs.
type queues struct {
	claryv1.UnimplementedQueuesServer
	mu   sync.Mutex
	tree *share.Tree
}

// newQueues is the tree that a cluster is born with.
func newQueues() *queues {
	tree := share.New()
	_ = tree.Set([]cluster.Queue{{Name: cluster.DefaultQueue, Weight: 1, Revision: 1}}) // it has no mistake
	return &queues{tree: tree}
}

func (s *queues) List(context.Context, *claryv1.ListQueuesRequest) (*claryv1.ListQueuesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &claryv1.ListQueuesResponse{Capacity: wire.AmountToProto(s.tree.Capacity())}
	for _, queue := range s.tree.Queues() {
		answer.Queues = append(answer.Queues, wire.QueueViewToProto(s.tree.View(queue.Name, 0)))
	}
	return answer, nil
}

func (s *queues) Edit(_ context.Context, request *claryv1.EditQueuesRequest) (*claryv1.EditQueuesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit := share.Edit{Delete: request.GetDelete(), Replace: request.GetReplace(), Create: request.GetCreate()}
	for _, queue := range request.GetPut() {
		edit.Put = append(edit.Put, wire.QueueFromProto(queue))
	}
	left := s.tree.Queues()
	changes, err := edit.Of(left)
	if err != nil {
		return nil, err
	}
	answer := &claryv1.EditQueuesResponse{}
	for _, change := range changes {
		told := &claryv1.QueueChange{}
		left = slices.DeleteFunc(left, func(q cluster.Queue) bool { return q.Name == change.Before.Name })
		if change.Before.Name != "" {
			told.Before = wire.QueueToProto(change.Before)
		}
		if change.After.Name != "" {
			told.After = wire.QueueToProto(change.After)
			change.After.Revision++
			left = append(left, change.After)
		}
		answer.Changes = append(answer.Changes, told)
	}
	if request.GetDryRun() {
		return answer, nil
	}
	return answer, s.tree.Set(left)
}
