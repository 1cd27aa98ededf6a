package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// endpoints serves what is behind the names that requests for answers go to. Changes are records of
// the endpoint at the revision that was read, with a check of its job, so any coordinator makes them.
type endpoints struct {
	claryv1.UnimplementedEndpointsServer
	replica Replica
	leader  leaderConns
	planner Planner
	traffic Traffic
	jobs    *jobs // what checks a submission checks an update
}

// endpointRead is an endpoint as one snapshot has it.
type endpointRead struct {
	job      cluster.Job
	endpoint cluster.Endpoint
}

// readEndpoint finds an endpoint with its job.
func readEndpoint(snapshot *state.Snapshot, name string) (endpointRead, error) {
	job, exists := snapshot.Job(name)
	endpoint, begun := snapshot.Endpoint(name)
	switch {
	case !exists:
		return endpointRead{}, fault.New(fault.NotFound, "endpoint: there is no %q: see clary endpoints", cluster.Clip(name))
	case job.Kind != cluster.KindEndpoint:
		return endpointRead{}, fault.New(fault.Invalid, "endpoint: %q is a job of kind %s", name, job.Kind)
	case !begun:
		return endpointRead{}, fault.New(fault.Internal, "endpoint %q: its job has nothing beside it", name)
	}
	return endpointRead{job, endpoint}, nil
}

// Get tells how an endpoint stands: the leader adds what routers see, and what waits for room.
func (s *endpoints) Get(ctx context.Context, request *claryv1.GetEndpointRequest) (*claryv1.EndpointView, error) {
	if !request.GetStale() {
		if conn, err := s.leader.elsewhere(); err != nil || conn != nil {
			if err != nil {
				return nil, err
			}
			return claryv1.NewEndpointsClient(conn).Get(forwarded(ctx), request)
		}
	}
	return s.view(ctx, request.GetName(), request.GetStale())
}

func (s *endpoints) view(ctx context.Context, name string, stale bool) (*claryv1.EndpointView, error) {
	snapshot, err := s.replica.Read(ctx, stale)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	r, err := readEndpoint(snapshot, name)
	if err != nil {
		return nil, err
	}
	view := &claryv1.EndpointView{Job: wire.JobToProto(r.job), Endpoint: wire.EndpointToProto(r.endpoint), Routers: s.routers()}
	seen := Seen{}
	if s.replica.Leads() {
		seen = s.traffic.Seen(name)
		view.Figures, view.Known = figures(seen), seen.Known
	}
	view.Replicas = replicas(snapshot, r.endpoint, seen, time.Now().UnixNano())
	if s.replica.Leads() {
		s.explain(ctx, name, view.Replicas)
	}
	return view, nil
}

// explain says what replicas that have no room wait for.
func (s *endpoints) explain(ctx context.Context, name string, replicas []*claryv1.ReplicaView) {
	waiting := map[string]*claryv1.ReplicaView{}
	for _, replica := range replicas {
		if replica.GetState() == replicaWaiting {
			waiting[name+"/"+replica.GetGang()] = replica
		}
	}
	if len(waiting) == 0 {
		return
	}
	whys, err := s.planner.Why(ctx, name)
	if err != nil {
		return // the view is right without the reason
	}
	for _, why := range whys {
		if replica := waiting[why.Gang]; replica != nil {
			replica.Reason = why.Summary
		}
	}
}

// List tells of endpoints by name, without their replicas and figures.
func (s *endpoints) List(ctx context.Context, request *claryv1.ListEndpointsRequest) (*claryv1.ListEndpointsResponse, error) {
	limit, err := pageLimit(request.GetLimit(), endpointsPage)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.replica.Read(ctx, request.GetStale())
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	answer, size := &claryv1.ListEndpointsResponse{}, 0
	for endpoint := range snapshot.Endpoints() {
		job, exists := snapshot.Job(endpoint.Job)
		if endpoint.Job <= request.GetAfter() || !exists || !request.GetEnded() && job.State.Ended() || request.GetOwner() != "" && request.GetOwner() != job.Owner {
			continue
		}
		next := s.summary(snapshot, job, endpoint)
		size += proto.Size(next)
		if have := len(answer.Endpoints); have == limit || have > 0 && size > pageBytes {
			answer.Next = answer.Endpoints[have-1].GetJob().GetName()
			break
		}
		answer.Endpoints = append(answer.Endpoints, next)
	}
	return answer, nil
}

const endpointsPage = 100 // endpoints of a page if no limit is said

// summary is a view for a list: what is long is left out, of replicas there is their state.
func (s *endpoints) summary(snapshot *state.Snapshot, job cluster.Job, endpoint cluster.Endpoint) *claryv1.EndpointView {
	job.Spec = nil
	seen := Seen{}
	if s.replica.Leads() {
		seen = s.traffic.Seen(job.Name)
	}
	view := &claryv1.EndpointView{Job: wire.JobToProto(job), Figures: figures(seen), Known: seen.Known}
	for _, replica := range replicas(snapshot, endpoint, seen, time.Now().UnixNano()) {
		view.Replicas = append(view.Replicas, &claryv1.ReplicaView{
			Variant: replica.GetVariant(), Generation: replica.GetGeneration(), Number: replica.GetNumber(), State: replica.GetState(), Node: replica.GetNode(),
		})
	}
	endpoint.Spec, endpoint.Previous, endpoint.PreviousModels, endpoint.Notes = nil, nil, nil, endpoint.Notes[max(0, len(endpoint.Notes)-1):]
	fleets := make([]cluster.Fleet, len(endpoint.Fleets))
	for i, fleet := range endpoint.Fleets {
		fleet.Spec, fleet.Role, fleet.Scaler = nil, cluster.Role{}, nil
		fleets[i] = fleet
	}
	endpoint.Fleets = fleets
	view.Endpoint = wire.EndpointToProto(endpoint)
	return view
}

// watchEvery is how often figures are looked at while somebody watches.
const watchEvery = time.Second

// Watch sends the view when it has changed, until the job has ended.
func (s *endpoints) Watch(request *claryv1.WatchEndpointRequest, stream grpc.ServerStreamingServer[claryv1.EndpointView]) error {
	ctx, name := stream.Context(), request.GetName()
	events := s.replica.Events().Subscribe(ofJob(name))
	defer events.Close()
	clock := time.NewTicker(watchEvery)
	defer clock.Stop()
	var last *claryv1.EndpointView
	for {
		view, err := s.Get(ctx, &claryv1.GetEndpointRequest{Name: name})
		if err != nil {
			return err
		}
		if !proto.Equal(view, last) {
			if err := stream.Send(view); err != nil {
				return err
			}
			last = view
		}
		if cluster.JobState(view.GetJob().GetState()).Ended() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.C:
		case _, open := <-events.C:
			if !open {
				return fault.New(fault.Unready, "this coordinator is stopping: watch at another")
			}
		}
	}
}

// Routers tells where requests for answers go.
func (s *endpoints) Routers(context.Context, *claryv1.ListRoutersRequest) (*claryv1.ListRoutersResponse, error) {
	return &claryv1.ListRoutersResponse{Routers: s.routers()}, nil
}

func (s *endpoints) routers() []*claryv1.Router {
	var all []*claryv1.Router
	for _, r := range s.traffic.Routers() {
		all = append(all, &claryv1.Router{Id: r.ID, Url: r.URL, Ingress: r.Ingress})
	}
	return all
}
