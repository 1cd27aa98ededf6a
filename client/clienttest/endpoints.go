package clienttest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/invoke"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Endpoint is an endpoint of the cluster; the test says how it goes on.
type Endpoint struct {
	cluster.Endpoint
	Replicas []client.ReplicaView
	Figures  []client.FleetFigures
	Known    bool
}

// UpdateEndpoint changes an endpoint, and everybody who watches it is told. One that is not there is made.
func (c *Cluster) UpdateEndpoint(name string, change func(*Endpoint)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	endpoint := c.endpoints[name]
	endpoint.Job = name
	endpoint.Fleets, endpoint.Replicas, endpoint.Notes = slices.Clone(endpoint.Fleets), slices.Clone(endpoint.Replicas), slices.Clone(endpoint.Notes)
	change(&endpoint)
	c.revised++
	endpoint.Revision = c.revised
	c.endpoints[name] = endpoint
	c.tell()
}

// Endpoint reads an endpoint.
func (c *Cluster) Endpoint(name string) (Endpoint, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	endpoint, found := c.endpoints[name]
	return endpoint, found
}

// AddRouter serves requests for answers, over TLS as a coordinator, and has the cluster tell of it.
func (c *Cluster) AddRouter(id string, handler http.Handler) (invoke.Router, error) {
	shown, err := c.credentials(id)
	if err != nil {
		return invoke.Router{}, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return invoke.Router{}, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	c.running.Go(func() { _ = server.Serve(tls.NewListener(listener, pki.ServerTLS(shown.Static(), "http/1.1"))) })
	context.AfterFunc(c.ctx, func() { _ = server.Close() })
	router := invoke.Router{ID: id, URL: "https://" + listener.Addr().String()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routers = append(c.routers, router)
	return router, nil
}

// AddRouterAt has the cluster tell of a router that runs elsewhere, or nowhere.
func (c *Cluster) AddRouterAt(router invoke.Router) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routers = append(c.routers, router)
}

type endpoints struct {
	claryv1.UnimplementedEndpointsServer
	c *Cluster
}

// read finds an endpoint's view, and a channel that is closed when anything changes.
func (s *endpoints) read(name string) (*claryv1.EndpointView, <-chan struct{}, error) {
	view, found, changed := s.c.Job(name)
	if !found {
		return nil, nil, fault.New(fault.NotFound, "endpoint: there is no %q: see clary endpoints", name)
	}
	if view.Job.Kind != cluster.KindEndpoint {
		return nil, nil, fault.New(fault.Invalid, "endpoint: %q is a job of kind %s", name, view.Job.Kind)
	}
	endpoint, _ := s.c.Endpoint(name)
	answer := &claryv1.EndpointView{Job: wire.JobToProto(view.Job), Endpoint: wire.EndpointToProto(endpoint.Endpoint), Known: endpoint.Known, Routers: s.routers()}
	for _, r := range endpoint.Replicas {
		answer.Replicas = append(answer.Replicas, &claryv1.ReplicaView{
			Variant: r.Variant, Generation: r.Generation, Number: r.Number, Gang: r.Gang, Task: r.Task, Node: r.Node, State: r.State, Reason: r.Reason, Since: r.Since,
			Healthy: r.Healthy, Attempt: r.Attempt, Failures: r.Failures, InFlight: r.InFlight, Ejected: r.Ejected, EjectedWhy: r.EjectedWhy, NotBefore: r.NotBefore,
			FailedTask: r.FailedTask, Failure: r.Failure,
		})
	}
	for _, f := range endpoint.Figures {
		answer.Figures = append(answer.Figures, &claryv1.FleetFigures{
			Variant: f.Variant, Generation: f.Generation, Window: int64(f.Window), Requests: f.Requests, Errors: f.Errors, Refused: f.Refused, InFlight: f.InFlight,
			Waiting: f.Waiting, P50: int64(f.P50), P99: int64(f.P99), MeanConcurrency: f.Concurrency, Total: f.Total, TotalErrors: f.TotalErrors,
		})
	}
	return answer, changed, nil
}

func (s *endpoints) routers() []*claryv1.Router {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	var all []*claryv1.Router
	for _, r := range s.c.routers {
		all = append(all, &claryv1.Router{Id: r.ID, Url: r.URL, Ingress: r.Ingress})
	}
	return all
}

func (s *endpoints) Get(_ context.Context, request *claryv1.GetEndpointRequest) (*claryv1.EndpointView, error) {
	view, _, err := s.read(request.GetName())
	return view, err
}

func (s *endpoints) List(_ context.Context, request *claryv1.ListEndpointsRequest) (*claryv1.ListEndpointsResponse, error) {
	s.c.mu.Lock()
	names := slices.Sorted(maps.Keys(s.c.endpoints))
	s.c.mu.Unlock()
	answer := &claryv1.ListEndpointsResponse{}
	for _, name := range names {
		view, _, err := s.read(name)
		if err != nil || !request.GetEnded() && cluster.JobState(view.GetJob().GetState()).Ended() {
			continue
		}
		answer.Endpoints = append(answer.Endpoints, view)
	}
	return answer, nil
}

func (s *endpoints) Watch(request *claryv1.WatchEndpointRequest, stream grpc.ServerStreamingServer[claryv1.EndpointView]) error {
	for {
		view, changed, err := s.read(request.GetName())
		if err != nil {
			return err
		}
		if err := stream.Send(view); err != nil || cluster.JobState(view.GetJob().GetState()).Ended() {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// change edits an endpoint's copy, and keeps it if it is valid.
func (s *endpoints) change(name string, edit func(*cluster.Endpoint) error) (*claryv1.EndpointView, error) {
	if _, _, err := s.read(name); err != nil {
		return nil, err
	}
	var failed error
	s.c.UpdateEndpoint(name, func(e *Endpoint) {
		edited := e.Endpoint
		edited.Fleets = slices.Clone(e.Fleets)
		if failed = edit(&edited); failed == nil {
			e.Endpoint = edited
		}
	})
	if failed != nil {
		return nil, failed
	}
	view, _, err := s.read(name)
	return view, err
}

func fleetOf(e *cluster.Endpoint, variant string) (*cluster.Fleet, error) {
	for i := range e.Fleets {
		if e.Fleets[i].Variant == variant && !e.Fleets[i].Retired {
			return &e.Fleets[i], nil
		}
	}
	return nil, fault.New(fault.NotFound, "endpoint %s has no variant %q", e.Job, variant)
}

func (s *endpoints) Weights(_ context.Context, request *claryv1.SetWeightsRequest) (*claryv1.EndpointView, error) {
	return s.change(request.GetName(), func(e *cluster.Endpoint) error {
		for _, variant := range slices.Sorted(maps.Keys(request.GetWeights())) {
			fleet, err := fleetOf(e, variant)
			if err != nil {
				return err
			}
			fleet.Weight = request.GetWeights()[variant]
		}
		return nil
	})
}

// Scale sets counts; what has bounds only stays as it is.
func (s *endpoints) Scale(_ context.Context, request *claryv1.ScaleEndpointRequest) (*claryv1.EndpointView, error) {
	return s.change(request.GetName(), func(e *cluster.Endpoint) error {
		for _, scale := range request.GetVariants() {
			if scale.Replicas == nil {
				continue
			}
			for i := range e.Fleets {
				if scale.GetVariant() == "" {
					e.Fleets[i].Replicas = scale.GetReplicas()
				}
			}
			if scale.GetVariant() == "" {
				continue
			}
			fleet, err := fleetOf(e, scale.GetVariant())
			if err != nil {
				return err
			}
			fleet.Replicas = scale.GetReplicas()
		}
		return nil
	})
}

// variants are those of a spec, as they are written.
func variants(spec []byte) string {
	var fields struct {
		Variants json.RawMessage `json:"variants"`
	}
	_ = json.Unmarshal(spec, &fields) // a spec that is none has no variants
	return string(fields.Variants)
}

// Update begins a rollout, which the test goes on with. With the same variants it changes the rest in place.
func (s *endpoints) Update(_ context.Context, request *claryv1.UpdateEndpointRequest) (*claryv1.EndpointView, error) {
	return s.change(request.GetName(), func(e *cluster.Endpoint) error {
		if expect := request.GetExpect(); expect != 0 && expect != e.Last {
			return fault.New(fault.Conflict, "expect: generation %d is not the newest, %d", expect, e.Last)
		}
		if request.GetDryRun() || string(e.Spec) == string(request.GetSpec()) {
			return nil
		}
		if variants(e.Spec) == variants(request.GetSpec()) {
			e.Spec = request.GetSpec()
			return nil
		}
		e.Last++
		now := time.Now().UnixNano()
		e.Rollout = &cluster.Rollout{From: e.Generation, To: e.Last, Spec: request.GetSpec(), Phase: cluster.RolloutStarting, Steps: []float64{1}, Started: now, Since: now}
		return nil
	})
}

// Rollback ends a rollout.
func (s *endpoints) Rollback(_ context.Context, request *claryv1.RollbackEndpointRequest) (*claryv1.EndpointView, error) {
	return s.change(request.GetName(), func(e *cluster.Endpoint) error {
		if e.Rollout == nil && len(e.Previous) == 0 {
			return fault.New(fault.Conflict, "endpoint %s has nothing to go back to", e.Job)
		}
		e.Rollout = nil
		e.Notes = append(e.Notes, cluster.EndpointNote{At: time.Now().UnixNano(), What: "rolled-back", Text: fmt.Sprintf("as asked: %s", request.GetReason())})
		return nil
	})
}

func (s *endpoints) Routers(context.Context, *claryv1.ListRoutersRequest) (*claryv1.ListRoutersResponse, error) {
	return &claryv1.ListRoutersResponse{Routers: s.routers()}, nil
}

// Experiment begins or ends one. What is counted of it is up to the test.
func (s *endpoints) Experiment(_ context.Context, request *claryv1.ExperimentRequest) (*claryv1.EndpointView, error) {
	return s.change(request.GetName(), func(e *cluster.Endpoint) error {
		running := e.Experiment != nil && e.Experiment.Ended == 0
		now := time.Now().UnixNano()
		switch starts := len(request.GetSpec()) > 0; {
		case starts && running:
			return fault.New(fault.Conflict, "endpoint %q: an experiment is in progress", e.Job)
		case starts:
			e.Experiment = &cluster.Experiment{Spec: request.GetSpec(), State: []byte("{}"), By: "root", Started: now}
		case !running:
			return fault.New(fault.Conflict, "endpoint %q: no experiment is in progress", e.Job)
		default:
			ended := *e.Experiment
			ended.Ended, ended.Verdict = now, "stopped by root"
			e.Experiment = &ended
		}
		return nil
	})
}
