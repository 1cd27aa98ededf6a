package rpc

import (
	"context"
	"fmt"
	"slices"

	"github.com/clary-ml/clary/cluster"
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
		_, archived := snapshot.Archived(name)
		switch {
		case archived:
			p.Add(field, "sweep %q is archived, and its trials with it: there is something to learn from sweeps at hand only (retention.jobs of clary settings)", name)
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
	if row, archived := snapshot.Archived(sweep); archived && row.Kind == cluster.KindTuning {
		return fault.New(fault.Conflict, "name: %q may be a trial's of the archived sweep %s, and what that left is kept under it: choose another name", name, sweep)
	}
	trial, exists := snapshot.Trial(cluster.TrialID(sweep, number))
	if _, there := snapshot.Job(name); there || !exists || !slices.Contains(tuning.JobsOf(trial), name) {
		return nil // a job that is there says so itself
	}
	return fault.New(fault.Conflict, "name: %q was the job of trial %d of sweep %s, and what that left is kept under it: choose another name", name, number, sweep)
}
