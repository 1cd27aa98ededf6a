package fsm_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
)

func TestReplicasAreEqualInWhatSweepsGoThrough(t *testing.T) {
	exercised := equalReplicas(t, func(d drawer) command.Command {
		if d.s.Index() < 3 {
			return d.tuning()
		}
		return pick(d, []func() command.Command{
			d.tuning, d.trials, d.trials, d.trials, d.trials, d.dropSweep, d.dropSweep, d.changeJob, d.submit, d.drop,
		}, "command")()
	})
	for _, what := range []string{"a trial", "a trial ends", "a child", "delete a sweep", "delete a trial"} {
		for _, answer := range []string{"accepted", "refused"} {
			if exercised[what+" "+answer] < 5 {
				t.Errorf("%s %s: %d times", what, answer, exercised[what+" "+answer])
			}
		}
	}
	t.Log(exercised)
}

// tuning submits a tuning job with its sweep.
func (d drawer) tuning() command.Command {
	name := d.name("sweep", 2)
	job := cluster.Job{Name: name, Kind: cluster.KindTuning, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1}
	return command.Record{Changes: []command.Change{{Job: &job}, {Sweep: &cluster.Sweep{Job: name, Parallel: 3}}}}
}

// trials makes trials of a sweep or changes some, counts them rightly for the most part, and
// sometimes makes a job for one.
func (d drawer) trials() command.Command {
	var record command.Record
	job, isThere := d.s.Job(d.name("sweep", 2))
	sweep, begun := d.s.Sweep(job.Name)
	if !isThere || !begun {
		return d.tuning()
	}
	known := slices.Collect(d.s.TrialsOf(job.Name, 0))
	for _, trial := range known {
		if d.one(2) {
			continue
		}
		*sweep.Counts.Of(trial.State)--
		trial.State = pick(d, []cluster.TrialState{
			cluster.TrialWaiting, cluster.TrialRunning, cluster.TrialPaused, cluster.TrialComplete, cluster.TrialStopped, cluster.TrialFailed,
		}, "state")
		*sweep.Counts.Of(trial.State)++
		if trial.State.Ended() {
			sweep.Order++
			trial.Order = sweep.Order
		}
		record.Changes = append(record.Changes, command.Change{Expect: d.expect(trial.Revision), Trial: &trial})
	}
	for range rapid.IntRange(0, 2).Draw(d.T, "new trials") {
		trial := cluster.Trial{Sweep: job.Name, Number: sweep.Next, Config: []float64{float64(sweep.Next)}, State: cluster.TrialRunning}
		sweep.Next++
		sweep.Counts.Running++
		record.Changes = append(record.Changes, command.Change{Trial: &trial})
	}
	if d.one(10) {
		sweep.Counts.Failed++
	}
	record.Changes = append(record.Changes,
		command.Change{Expect: d.expect(sweep.Revision), Sweep: &sweep},
		command.Change{Expect: job.Revision, Check: &command.Key{Kind: state.KindJob, ID: job.Name}})
	if d.one(3) {
		child := d.submit().(command.Record)
		child.Changes[0].Job.Parent = job.Name
		record.Changes = append(record.Changes, child.Changes...)
	}
	return record
}

// dropSweep deletes a sweep, or a few of its trials.
func (d drawer) dropSweep() command.Command {
	name := d.name("sweep", 2)
	sweep, exists := d.s.Sweep(name)
	if job, isThere := d.s.Job(name); isThere && !job.State.Ended() && d.one(2) {
		job.State = cluster.JobCancelled
		return command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}}
	}
	record := command.Record{Changes: []command.Change{{Expect: sweep.Revision, Delete: &command.Key{Kind: state.KindSweep, ID: name}}}}
	if exists {
		return record
	}
	for trial := range d.s.TrialsOf(name, 0) {
		record.Changes[0] = command.Change{Expect: d.expect(trial.Revision), Delete: &command.Key{Kind: state.KindTrial, ID: trial.ID()}}
	}
	return record
}

// checkSweeps: a sweep's counts are its trials', and the indexes name what they should.
func checkSweeps(t *rapid.T, s *state.Snapshot) {
	for i := range 2 {
		name := fmt.Sprintf("sweep%d", i+1)
		sweep, exists := s.Sweep(name)
		var counts cluster.TrialCounts
		var live []string
		last := uint64(0)
		for trial := range s.TrialsOf(name, 0) {
			*counts.Of(trial.State)++
			last = max(last, trial.Order)
			if !trial.State.Ended() {
				live = append(live, trial.ID())
			}
		}
		if exists && (counts != sweep.Counts || last > sweep.Order || counts.Total() != sweep.Next) {
			t.Fatalf("%+v has trials %+v, the last order is %d", sweep, counts, last)
		}
		var indexed []string
		for trial := range s.LiveTrialsOf(name) {
			indexed = append(indexed, trial.ID())
		}
		if !slices.Equal(live, indexed) {
			t.Fatalf("%s: %v live, the index has %v", name, live, indexed)
		}
	}
	children := map[string][]string{}
	for job := range s.Jobs("") {
		if job.Parent != "" {
			children[job.Parent] = append(children[job.Parent], job.Name)
		}
	}
	for job := range s.Jobs("") {
		var indexed []string
		for child := range s.ChildrenOf(job.Name) {
			indexed = append(indexed, child.Name)
		}
		if !slices.Equal(children[job.Name], indexed) {
			t.Fatalf("%s has made %v, the index has %v", job.Name, children[job.Name], indexed)
		}
		delete(children, job.Name)
	}
	if len(children) > 0 {
		t.Fatalf("jobs outlive who made them: %v", children)
	}
}

// countSweeps counts what sweeps went through.
func (y tally) countSweeps(c command.Command, result command.Result) {
	record, is := c.(command.Record)
	if !is {
		return
	}
	for _, change := range record.Changes {
		what := ""
		switch {
		case change.Trial != nil && change.Trial.State.Ended():
			what = "a trial ends"
		case change.Trial != nil:
			what = "a trial"
		case change.Job != nil && change.Job.Parent != "":
			what = "a child"
		case change.Delete != nil && (change.Delete.Kind == state.KindSweep || change.Delete.Kind == state.KindTrial):
			what = "delete a " + string(change.Delete.Kind)
		default:
			continue
		}
		answer := "accepted"
		if result.Err != nil {
			answer = "refused"
		}
		y[what+" "+answer]++
	}
}
