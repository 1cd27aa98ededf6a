package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
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

// answers loses the answer of the next edit of queues, once more happened.
type answers struct {
	mu   sync.Mutex
	next func()
}

func (a *answers) lose(more func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next = more
}

func (a *answers) lost(method string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if method != "Edit" || a.next == nil {
		return nil
	}
	a.next()
	a.next = nil
	return fault.New(fault.Unready, "the leader steps down")
}

func TestAnEditOfQueuesWhoseAnswerIsLostIsDoneOnceAndSaysSo(t *testing.T) {
	fake, err := clienttest.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fake.Close() }()
	tree, answer := newQueues(), &answers{}
	fake.Queues, fake.Lose = tree, answer.lost
	c, err := client.Dial(fake.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	quota := cluster.Quota{{Resource: "gpus", Amount: 8000}, {Resource: "memory", Amount: 1 << 40}}
	lab := cluster.Queue{Name: "lab", Weight: 2, Guarantee: quota, Order: cluster.OrderShortest, Preempt: cluster.Preempt{Within: cluster.PreemptLonger}}

	answer.lose(func() {})
	changes, err := c.EditQueues(t.Context(), client.QueueEdit{Put: []cluster.Queue{lab}, Create: true})
	if err != nil || len(changes) != 1 || changes[0].Before.Name != "" || changes[0].After.Weight != 2 {
		t.Fatalf("made: %+v, %v", changes, err)
	}
	if _, err := c.EditQueues(t.Context(), client.QueueEdit{Put: []cluster.Queue{lab}, Create: true}); !fault.Is(err, fault.Conflict) {
		t.Errorf("made twice: %v", err)
	}
	wider := changes[0].After
	wider.Weight = 3 // at the revision that it was made at
	answer.lose(func() {})
	changes, err = c.EditQueues(t.Context(), client.QueueEdit{Put: []cluster.Queue{wider}})
	if err != nil || len(changes) != 1 || changes[0].After.Weight != 3 {
		t.Errorf("changed: %+v, %v", changes, err)
	}
	answer.lose(func() {})
	changes, err = c.EditQueues(t.Context(), client.QueueEdit{Delete: []string{"lab"}})
	if err != nil || len(changes) != 1 || changes[0].Before.Name != "lab" || changes[0].After.Name != "" {
		t.Errorf("deleted: %+v, %v", changes, err)
	}
	if _, err := c.EditQueues(t.Context(), client.QueueEdit{Delete: []string{"lab"}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	// Another took the name meanwhile: it is not what was asked for.
	answer.lose(func() {
		_, _ = tree.Edit(context.Background(), &claryv1.EditQueuesRequest{Put: []*claryv1.Queue{{Name: "lab", Weight: 7}}})
	})
	_, err = c.EditQueues(t.Context(), client.QueueEdit{Put: []cluster.Queue{lab}, Create: true})
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("another's queue is taken for the own: %v", err)
	}
}
