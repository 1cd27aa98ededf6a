package rpc

import (
	"context"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// onRecord is a job with its gangs, tasks and outputs: as the state has it, or from its record if it is archived.
func (s *jobs) onRecord(ctx context.Context, snapshot *state.Snapshot, name string) (*claryv1.JobView, error) {
	if view := disposal.View(snapshot, name); view != nil {
		return view, nil
	}
	row, is := snapshot.Archived(name)
	if !is {
		return nil, noJob(name)
	}
	store, err := s.records()
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "job %q is archived, and its record cannot be read: %w", name, err)
	}
	view, err := disposal.Recorded(ctx, store, name)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "job %q is archived: %w", name, err)
	}
	view.Archived = row.At
	return view, nil
}

// missing says of a job that is not at hand where it is.
func missing(snapshot *state.Snapshot, name string) error {
	row, is := snapshot.Archived(name)
	if !is {
		return noJob(name)
	}
	return fault.New(fault.NotFound, "name: job %q has %s and was archived at %s: see clary job %s", name, row.State, time.Unix(0, row.At).UTC().Format(time.RFC3339), name)
}

// listArchived lists archived jobs: what is known of them without their records.
func listArchived(snapshot *state.Snapshot, request *claryv1.ListJobsRequest, limit int) (*claryv1.ListJobsResponse, error) {
	if len(request.GetLabels()) > 0 || request.GetParent() != "" {
		return nil, fault.New(fault.Invalid, "archived: labels and parents are in the records of archived jobs only, and cannot be searched for")
	}
	answer := &claryv1.ListJobsResponse{}
	for row := range snapshot.ArchivedJobs(request.GetAfter()) {
		if job := row.Job(); matches(job, request) {
			if len(answer.Jobs) == limit {
				answer.Next = answer.Jobs[limit-1].GetName()
				break
			}
			answer.Jobs = append(answer.Jobs, wire.JobToProto(job))
		}
	}
	return answer, nil
}

// deleteArchived deletes an archived job of the caller's, if that is what there is of it.
func (s *jobs) deleteArchived(ctx context.Context, name string) (deleted bool, err error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return false, err
	}
	_, atHand := snapshot.Job(name)
	row, is := snapshot.Archived(name)
	snapshot.Close()
	if atHand || !is {
		return false, nil
	}
	if err := caller(ctx).owns(row.Job()); err != nil {
		return false, err
	}
	_, err = s.disposal().Archived(ctx, row)
	return true, err
}

// tasksOf are a job's tasks and gangs, from its record if it is archived.
func (s *jobs) tasksOf(ctx context.Context, snapshot *state.Snapshot, name string) (cluster.Job, []cluster.Gang, []cluster.Task, error) {
	if job, atHand := snapshot.Job(name); atHand {
		return job, slices.Collect(snapshot.GangsOf(name)), slices.Collect(snapshot.TasksOf(name)), nil
	}
	view, err := s.onRecord(ctx, snapshot, name)
	if err != nil {
		return cluster.Job{}, nil, nil, err
	}
	gangs, tasks := make([]cluster.Gang, len(view.GetGangs())), make([]cluster.Task, len(view.GetTasks()))
	for i, gang := range view.GetGangs() {
		gangs[i] = wire.GangFromProto(gang)
	}
	for i, task := range view.GetTasks() {
		tasks[i] = wire.TaskFromProto(task)
	}
	return wire.JobFromProto(view.GetJob()), gangs, tasks, nil
}
