package clienttest

import (
	"context"

	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// queues passes on to the tree of queues that the test keeps: what it may be is not a client's to know.
type queues struct {
	claryv1.UnimplementedQueuesServer
	c *Cluster
}

func (s *queues) List(ctx context.Context, request *claryv1.ListQueuesRequest) (*claryv1.ListQueuesResponse, error) {
	if s.c.Queues == nil {
		return nil, fault.New(fault.Unready, "this cluster keeps no queues")
	}
	return s.c.Queues.List(ctx, request)
}

func (s *queues) Edit(ctx context.Context, request *claryv1.EditQueuesRequest) (*claryv1.EditQueuesResponse, error) {
	if s.c.Queues == nil {
		return nil, fault.New(fault.Unready, "this cluster keeps no queues")
	}
	return s.c.Queues.Edit(ctx, request)
}
