package rpc

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/tuning"
)

// checkEarlier refuses a sweep that is to learn from what is not there, or still changes.
func (s *jobs) checkEarlier(ctx context.Context, job cluster.Job) error {
	if job.Kind != cluster.KindTuning {
		return nil
	}
	names := tuning.WarmStart(job.Spec)
	if len(names) == 0 {
		return nil
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	var p cluster.Problems
	for i, name := range names {
		field := fmt.Sprintf("spec.warm_start[%d]", i)
		earlier, exists := snapshot.Job(name)
		switch {
		case !exists:
			p.Add(field, "there is no job %q: see clary sweeps", name)
		case earlier.Kind != cluster.KindTuning:
			p.Add(field, "job %q is of kind %s: there is something to learn from tuning jobs only", name, earlier.Kind)
		case !earlier.State.Ended():
			p.Add(field, "sweep %q is %s: it must have ended", name, earlier.State)
		}
	}
	if err := p.Err(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	return nil
}

// checkName refuses the name of a job that a trial had: what the trial left in the object
// store is there under it, for as long as its sweep is.
func (s *jobs) checkName(ctx context.Context, name string) error {
	sweep, number, ok := tuning.TrialNamed(name)
	if !ok {
		return nil
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	trial, exists := snapshot.Trial(cluster.TrialID(sweep, number))
	if _, there := snapshot.Job(name); there || !exists || !slices.Contains(tuning.JobsOf(trial), name) {
		return nil // a job that is there says so itself
	}
	return fault.New(fault.Conflict, "name: %q was the job of trial %d of sweep %s, and what that left is kept under it: choose another name", name, number, sweep)
}

// learners are sweeps that go on and learn from an earlier one.
func learners(snapshot *state.Snapshot, earlier string) []string {
	var names []string
	for job := range snapshot.Jobs("") {
		if job.Kind == cluster.KindTuning && !job.State.Ended() && slices.Contains(tuning.WarmStart(job.Spec), earlier) {
			names = append(names, job.Name)
		}
	}
	return names
}

const (
	// deleteRows is how many trials one record deletes.
	deleteRows = 500
	// deleteAtOnce is how many jobs' objects are deleted at the same time.
	deleteAtOnce = 8
)

// deleteMade deletes what an ended job has made: its jobs, its sweep, and the sweep's trials
// with all that they left in the store. It can be cut off and done again at any time.
func (s *jobs) deleteMade(ctx context.Context, job cluster.Job) error {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return err
	}
	children := slices.Collect(snapshot.ChildrenOf(job.Name))
	sweep, swept := snapshot.Sweep(job.Name)
	var users []string
	if job.Kind == cluster.KindTuning {
		users = learners(snapshot, job.Name)
	}
	snapshot.Close()
	if len(users) > 0 {
		return fault.New(fault.Conflict, "job %s: sweep %s learns from it: delete it when that has ended", job.Name, users[0])
	}
	for _, child := range children {
		if !child.State.Ended() {
			return fault.New(fault.Conflict, "job %s has made job %s, which is %s: it is on its way to its end, try again", job.Name, child.Name, child.State)
		}
		if err := s.deleteObjects(ctx, child); err != nil {
			return err
		}
		if err := s.drop(ctx, command.Key{Kind: state.KindJob, ID: child.Name}, child.Revision); err != nil {
			return err
		}
	}
	if swept {
		if err := s.drop(ctx, command.Key{Kind: state.KindSweep, ID: job.Name}, sweep.Revision); err != nil {
			return err
		}
	}
	if job.Kind != cluster.KindTuning {
		return nil
	}
	return s.deleteTrials(ctx, job.Name)
}

func (s *jobs) drop(ctx context.Context, key command.Key, revision uint64) error {
	_, err := s.replica.Propose(ctx, command.Record{Changes: []command.Change{{Expect: revision, Delete: &key}}})
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// deleteTrials deletes a sweep's rows, a record at a time.
func (s *jobs) deleteTrials(ctx context.Context, sweep string) error {
	for {
		snapshot, err := s.replica.Read(ctx, false)
		if err != nil {
			return err
		}
		var r command.Record
		var left []string // jobs that may have left objects
		for trial := range snapshot.TrialsOf(sweep, 0) {
			r.Changes = append(r.Changes, command.Change{Expect: trial.Revision, Delete: &command.Key{Kind: state.KindTrial, ID: trial.ID()}})
			for _, job := range tuning.JobsOf(trial) {
				if _, another := snapshot.Job(job); !another { // the sweep's own are gone by now
					left = append(left, job)
				}
			}
			if len(r.Changes) == deleteRows {
				break
			}
		}
		snapshot.Close()
		if len(r.Changes) == 0 {
			return nil
		}
		group, work := errgroup.WithContext(ctx)
		group.SetLimit(deleteAtOnce)
		for _, job := range left {
			group.Go(func() error { return s.deleteObjects(work, cluster.Job{Name: job, Started: 1}) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		if _, err := s.replica.Propose(ctx, r); err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
}
