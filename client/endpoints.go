package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/client/invoke"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// EndpointView is an endpoint with what is behind it.
type EndpointView struct {
	Job      cluster.Job
	Endpoint cluster.Endpoint
	Figures  []FleetFigures
	Replicas []ReplicaView
	Routers  []invoke.Router
	Known    bool // the figures are of all routers: what is not there is 0
}

// FleetFigures are what all routers together saw of a fleet lately. Rates are a second, over Window.
type FleetFigures struct {
	Variant                   string
	Generation                int64
	Window                    time.Duration
	Requests, Errors, Refused float64
	Concurrency               float64 // mean
	InFlight, Waiting         int64   // now
	P50, P99                  time.Duration
	Total, TotalErrors        int64 // since routers began to count
	Rewards                   int64
	Reward                    float64       // mean
	Shadow                    *FleetFigures // of mirrored requests
}

// ReplicaView is one server of a variant.
type ReplicaView struct {
	Variant           string
	Generation        int64
	Number            int32
	Gang, Task, Node  string
	State             string // waiting, starting, healthy, unhealthy, draining or failed
	Reason            string
	Since, Healthy    int64
	Attempt, Failures int32
	InFlight          int64
	Ejected           bool
	EjectedWhy        string
	NotBefore         int64  // when one that failed is started again
	FailedTask        string // the last attempt that failed, and why it did
	Failure           string
}

// The states of a replica.
const (
	ReplicaWaiting   = "waiting"
	ReplicaStarting  = "starting"
	ReplicaHealthy   = "healthy"
	ReplicaUnhealthy = "unhealthy"
	ReplicaDraining  = "draining"
	ReplicaFailed    = "failed"
)

// Fleet is what is known of a fleet of the endpoint.
func (v EndpointView) Fleet(variant string, generation int64) FleetFigures {
	for _, figures := range v.Figures {
		if figures.Variant == variant && figures.Generation == generation {
			return figures
		}
	}
	return FleetFigures{Variant: variant, Generation: generation}
}

// Endpoint tells how an endpoint stands.
func (c *Client) Endpoint(ctx context.Context, name string, options ...ReadOption) (EndpointView, error) {
	return endpointAnswer(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.EndpointView, error) {
		return claryv1.NewEndpointsClient(conn).Get(ctx, &claryv1.GetEndpointRequest{Name: name, Stale: stale(options)})
	}))
}

// EndpointFilter says which endpoints to list.
type EndpointFilter struct {
	Owner string
	Ended bool // also those that have
	Stale bool
}

// Endpoints goes through all endpoints that match, by name. Of replicas it knows where they are and
// how they stand, of specs nothing.
func (c *Client) Endpoints(ctx context.Context, filter EndpointFilter) iter.Seq2[EndpointView, error] {
	return func(yield func(EndpointView, error) bool) {
		for after := ""; ; {
			response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListEndpointsResponse, error) {
				return claryv1.NewEndpointsClient(conn).List(ctx, &claryv1.ListEndpointsRequest{After: after, Owner: filter.Owner, Ended: filter.Ended, Stale: filter.Stale})
			})
			if err != nil {
				yield(EndpointView{}, err)
				return
			}
			for _, view := range response.GetEndpoints() {
				if !yield(endpointOf(view), nil) {
					return
				}
			}
			if after = response.GetNext(); after == "" {
				return
			}
		}
	}
}

// WatchEndpoint yields the endpoint as it is now and whenever it has changed, its figures once a second,
// until its job has ended. When a coordinator goes away it goes on at another. An error is the last thing
// it yields.
func (c *Client) WatchEndpoint(ctx context.Context, name string) iter.Seq2[EndpointView, error] {
	return func(yield func(EndpointView, error) bool) {
		err := c.stream(ctx, func(ctx context.Context, p *peer) (done, heard bool, err error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := claryv1.NewEndpointsClient(p.conn).Watch(ctx, &claryv1.WatchEndpointRequest{Name: name})
			if err != nil {
				return false, false, err
			}
			for {
				response, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return false, heard, fault.New(fault.Unready, "the coordinator ended the watch")
				}
				if err != nil {
					return false, heard, err
				}
				heard = true
				view := endpointOf(response)
				if !yield(view, nil) || view.Job.State.Ended() {
					return true, true, nil
				}
			}
		})
		if err != nil {
			yield(EndpointView{}, err)
		}
	}
}

// EndpointUpdate is what an endpoint is to be.
type EndpointUpdate struct {
	Spec []byte // JSON
	// Expect is the newest generation that the caller has seen: whoever was faster is not overwritten; 0
	// is whatever there is.
	Expect  int64
	Replace bool // an update in progress is given up
	Anew    bool // new replicas though nothing of them is different
	DryRun  bool // finds what would be refused, and changes nothing
}

// UpdateEndpoint begins to replace what runs by what another spec says. The same twice is one update.
func (c *Client) UpdateEndpoint(ctx context.Context, name string, update EndpointUpdate) (EndpointView, error) {
	request := &claryv1.UpdateEndpointRequest{
		Name: name, Spec: update.Spec, Expect: update.Expect, Replace: update.Replace, Anew: update.Anew, DryRun: update.DryRun,
	}
	return endpointAnswer(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.EndpointView, error) {
		return claryv1.NewEndpointsClient(conn).Update(ctx, request)
	}))
}

// SetWeights sets how an endpoint's variants share the requests; those that are not named keep theirs.
func (c *Client) SetWeights(ctx context.Context, name string, weights map[string]float64) (EndpointView, error) {
	return endpointAnswer(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.EndpointView, error) {
		return claryv1.NewEndpointsClient(conn).Weights(ctx, &claryv1.SetWeightsRequest{Name: name, Weights: weights})
	}))
}

// VariantScale is how many replicas a variant is to have: so many, or between bounds as many as it needs.
type VariantScale struct {
	Variant  string // "" is each
	Replicas *int32
	Min, Max *int32
}

// ScaleEndpoint sets how many replicas variants have.
func (c *Client) ScaleEndpoint(ctx context.Context, name string, variants []VariantScale) (EndpointView, error) {
	request := &claryv1.ScaleEndpointRequest{Name: name}
	for _, v := range variants {
		request.Variants = append(request.Variants, &claryv1.VariantScale{Variant: v.Variant, Replicas: v.Replicas, Min: v.Min, Max: v.Max})
	}
	return endpointAnswer(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.EndpointView, error) {
		return claryv1.NewEndpointsClient(conn).Scale(ctx, request)
	}))
}

// RollbackEndpoint ends an update in progress by going back, or goes back to the spec before, as the caller
// has seen it: the same twice is one.
func (c *Client) RollbackEndpoint(ctx context.Context, seen cluster.Endpoint, reason string) (EndpointView, error) {
	request := &claryv1.RollbackEndpointRequest{Name: seen.Job, Expect: seen.Last, Updating: seen.Rollout != nil, Reason: reason}
	return endpointAnswer(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.EndpointView, error) {
		return claryv1.NewEndpointsClient(conn).Rollback(ctx, request)
	}))
}

// Routers are where requests for answers go; see client/invoke.
func (c *Client) Routers(ctx context.Context) ([]invoke.Router, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListRoutersResponse, error) {
		return claryv1.NewEndpointsClient(conn).Routers(ctx, &claryv1.ListRoutersRequest{})
	})
	return each(response.GetRouters(), routerOf), err
}

func routerOf(r *claryv1.Router) invoke.Router {
	return invoke.Router{URL: r.GetUrl(), ID: r.GetId(), Ingress: r.GetIngress()}
}

func endpointAnswer(response *claryv1.EndpointView, err error) (EndpointView, error) {
	if err != nil {
		return EndpointView{}, err
	}
	return endpointOf(response), nil
}

func endpointOf(v *claryv1.EndpointView) EndpointView {
	return EndpointView{
		Job: wire.JobFromProto(v.GetJob()), Endpoint: wire.EndpointFromProto(v.GetEndpoint()), Known: v.GetKnown(),
		Figures: each(v.GetFigures(), figuresOf), Replicas: each(v.GetReplicas(), replicaOf), Routers: each(v.GetRouters(), routerOf),
	}
}

func figuresOf(f *claryv1.FleetFigures) FleetFigures {
	figures := FleetFigures{
		Variant: f.GetVariant(), Generation: f.GetGeneration(), Window: time.Duration(f.GetWindow()), Requests: f.GetRequests(), Errors: f.GetErrors(),
		Refused: f.GetRefused(), Concurrency: f.GetMeanConcurrency(), InFlight: f.GetInFlight(), Waiting: f.GetWaiting(), P50: time.Duration(f.GetP50()),
		P99: time.Duration(f.GetP99()), Total: f.GetTotal(), TotalErrors: f.GetTotalErrors(), Rewards: f.GetRewards(), Reward: f.GetReward(),
	}
	if f.GetShadow() != nil {
		shadow := figuresOf(f.GetShadow())
		figures.Shadow = &shadow
	}
	return figures
}

func replicaOf(r *claryv1.ReplicaView) ReplicaView {
	return ReplicaView{
		Variant: r.GetVariant(), Generation: r.GetGeneration(), Number: r.GetNumber(), Gang: r.GetGang(), Task: r.GetTask(), Node: r.GetNode(),
		State: r.GetState(), Reason: r.GetReason(), Since: r.GetSince(), Healthy: r.GetHealthy(), Attempt: r.GetAttempt(), Failures: r.GetFailures(),
		InFlight: r.GetInFlight(), Ejected: r.GetEjected(), EjectedWhy: r.GetEjectedWhy(), NotBefore: r.GetNotBefore(),
		FailedTask: r.GetFailedTask(), Failure: r.GetFailure(),
	}
}

// StartExperiment begins to compare two variants of an endpoint; spec is JSON of workload/endpoint.Experiment.
func (c *Client) StartExperiment(ctx context.Context, name string, spec []byte) (EndpointView, error) {
	return endpointAnswer(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.EndpointView, error) {
		return claryv1.NewEndpointsClient(conn).Experiment(ctx, &claryv1.ExperimentRequest{Name: name, Spec: spec})
	}))
}

// EndExperiment ends the experiment of an endpoint without an answer.
func (c *Client) EndExperiment(ctx context.Context, name, reason string) (EndpointView, error) {
	return endpointAnswer(call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.EndpointView, error) {
		return claryv1.NewEndpointsClient(conn).Experiment(ctx, &claryv1.ExperimentRequest{Name: name, Reason: reason})
	}))
}
