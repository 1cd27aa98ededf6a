package clienttest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

type jobs struct {
	claryv1.UnimplementedJobsServer
	c *Cluster
}

func (s *jobs) Submit(ctx context.Context, request *claryv1.SubmitRequest) (*claryv1.SubmitResponse, error) {
	job := wire.JobFromProto(request.GetJob())
	if s.c.Check != nil {
		if err := s.c.Check(job); err != nil {
			return nil, err
		}
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if job.Name == "" {
		job.Name = "job-" + strings.ToLower(job.RequestID[:6])
	}
	if old, exists := s.c.jobs[job.Name]; exists {
		if old.Job.RequestID == job.RequestID {
			return &claryv1.SubmitResponse{Job: wire.JobToProto(old.Job), Existed: true}, nil
		}
		return nil, fault.New(fault.Conflict, "job %s exists: choose another name", job.Name)
	}
	if job.Queue == "" {
		job.Queue = cluster.DefaultQueue
	}
	caller, _ := s.c.caller(ctx)
	s.c.revised++
	job.Owner, job.State, job.Attempt, job.Submitted, job.Revision = caller.Name, cluster.JobQueued, 1, time.Now().UnixNano(), s.c.revised
	gang := cluster.Gang{Job: job.Name, Name: "main", Queue: job.Queue, Attempt: 1, Roles: []cluster.Role{{Name: "worker", Count: 1}}}
	if request.GetDryRun() {
		return s.dryRun(job, gang), nil
	}
	s.c.jobs[job.Name] = client.JobView{Job: job, Gangs: []cluster.Gang{gang}}
	s.c.tell()
	if s.c.Run != nil {
		s.c.running.Go(func() { s.c.Run(s.c.ctx, s.c, job) })
	}
	return &claryv1.SubmitResponse{Job: wire.JobToProto(job)}, nil
}

func (s *jobs) dryRun(job cluster.Job, gang cluster.Gang) *claryv1.SubmitResponse {
	response := &claryv1.SubmitResponse{Job: wire.JobToProto(job), Gangs: []*claryv1.Gang{wire.GangToProto(gang)}}
	for _, id := range slices.Sorted(maps.Keys(s.c.nodes)) {
		response.Placements = append(response.Placements, wire.PlacementToProto(cluster.Placement{
			Gang: gang.ID(), Attempt: 1, Allocations: []cluster.Allocation{{Node: id, Resources: cluster.Resources{MilliCPU: 1000}}},
		}))
		return response
	}
	response.Whys = append(response.Whys, wire.WhyToProto(cluster.Why{Gang: gang.ID(), Summary: "there is no node yet"}))
	return response
}

func (s *jobs) Get(_ context.Context, request *claryv1.GetJobRequest) (*claryv1.JobView, error) {
	view, found, _ := s.c.Job(request.GetName())
	if !found {
		return nil, noJob(request.GetName())
	}
	return viewToProto(view), nil
}

func noJob(name string) error {
	return fault.New(fault.NotFound, "there is no job %q: see clary jobs", name)
}

func (s *jobs) List(_ context.Context, request *claryv1.ListJobsRequest) (*claryv1.ListJobsResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	response := &claryv1.ListJobsResponse{}
	limit := int(request.GetLimit())
	if limit == 0 {
		limit = 100
	}
	for _, name := range slices.Sorted(maps.Keys(s.c.jobs)) {
		job := s.c.jobs[name].Job
		if (s.c.jobs[name].Archived != 0) != request.GetArchived() || name <= request.GetAfter() || len(request.GetStates()) > 0 && !slices.Contains(request.GetStates(), string(job.State)) ||
			request.GetKind() != "" && request.GetKind() != string(job.Kind) || request.GetOwner() != "" && request.GetOwner() != job.Owner || request.GetQueue() != "" && request.GetQueue() != job.Queue {
			continue
		}
		if len(response.Jobs) == limit {
			response.Next = response.Jobs[limit-1].GetName()
			break
		}
		response.Jobs = append(response.Jobs, wire.JobToProto(job))
	}
	return response, nil
}

func (s *jobs) Watch(request *claryv1.WatchJobRequest, stream grpc.ServerStreamingServer[claryv1.JobView]) error {
	sent := uint64(0)
	for {
		view, found, changed := s.c.Job(request.GetName())
		if !found {
			return noJob(request.GetName())
		}
		if view.Job.Revision != sent {
			sent = view.Job.Revision
			if err := stream.Send(viewToProto(view)); err != nil || view.Job.State.Ended() {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *jobs) Cancel(_ context.Context, request *claryv1.CancelJobRequest) (*claryv1.Job, error) {
	return s.change(request.GetName(), func(view *client.JobView) error {
		view.Job.Cancel = true
		if !view.Job.State.Ended() && (s.c.Run == nil || view.Job.State == cluster.JobQueued) {
			view.Job.State, view.Job.Reason = cluster.JobCancelled, request.GetReason()
		}
		return nil
	})
}

func (s *jobs) Release(_ context.Context, request *claryv1.ReleaseJobRequest) (*claryv1.Job, error) {
	return s.change(request.GetName(), func(view *client.JobView) error {
		view.Job.Held = false
		return nil
	})
}

func (s *jobs) change(name string, change func(*client.JobView) error) (*claryv1.Job, error) {
	if _, found, _ := s.c.Job(name); !found {
		return nil, noJob(name)
	}
	var err error
	s.c.Update(name, func(view *client.JobView) { err = change(view) })
	view, _, _ := s.c.Job(name)
	return wire.JobToProto(view.Job), err
}

func (s *jobs) Delete(_ context.Context, request *claryv1.DeleteJobRequest) (*claryv1.DeleteJobResponse, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	view, found := s.c.jobs[request.GetName()]
	if !found {
		return nil, noJob(request.GetName())
	}
	if !view.Job.State.Ended() {
		return nil, fault.New(fault.Conflict, "job %s is %s: cancel it first", view.Job.Name, view.Job.State)
	}
	delete(s.c.jobs, request.GetName())
	s.c.tell()
	return &claryv1.DeleteJobResponse{}, nil
}

func (s *jobs) Whys(_ context.Context, request *claryv1.WhysRequest) (*claryv1.WhysResponse, error) {
	response := &claryv1.WhysResponse{}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.c.jobs)) {
		view := s.c.jobs[name]
		if view.Job.State != cluster.JobQueued || view.Job.Held || request.GetQueue() != "" && request.GetQueue() != view.Job.Queue {
			continue
		}
		response.Waiting++
		response.Whys = append(response.Whys, wire.WhyToProto(cluster.Why{
			Gang: view.Job.Name + "/main", Queue: view.Job.Queue, Place: int32(response.Waiting), Of: 1, Summary: "there is no node yet",
		}))
	}
	return response, nil
}

func (s *jobs) Why(_ context.Context, request *claryv1.WhyRequest) (*claryv1.WhyResponse, error) {
	view, found, _ := s.c.Job(request.GetJob())
	if !found {
		return nil, noJob(request.GetJob())
	}
	response := &claryv1.WhyResponse{Job: wire.JobToProto(view.Job)}
	if view.Job.State == cluster.JobQueued {
		for _, gang := range view.Gangs {
			response.Whys = append(response.Whys, wire.WhyToProto(cluster.Why{
				Gang: gang.ID(), Summary: "there is no node yet",
				Blocks: []cluster.Block{{Constraint: "cores", Nodes: 2, Missing: 1000, Nearest: "n1", Text: "n1 has 1 of 2 cores free"}},
			}))
		}
	}
	return response, nil
}

func viewToProto(view client.JobView) *claryv1.JobView {
	out := &claryv1.JobView{Job: wire.JobToProto(view.Job), Archived: view.Archived}
	for _, gang := range view.Gangs {
		out.Gangs = append(out.Gangs, wire.GangToProto(gang))
	}
	for _, task := range view.Tasks {
		out.Tasks = append(out.Tasks, wire.TaskToProto(task))
	}
	if view.Publication != nil {
		out.Publication = wire.PublicationToProto(*view.Publication)
	}
	return out
}
