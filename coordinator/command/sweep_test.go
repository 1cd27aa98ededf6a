package command_test

import (
	"math"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// sweeping makes a running tuning job with its sweep.
func (w *world) sweeping(name string) {
	w.Helper()
	job := cluster.Job{Name: name, Kind: cluster.KindTuning, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued}
	w.must(record(command.Change{Job: &job}, command.Change{Sweep: &cluster.Sweep{Job: name, Parallel: 2}}))
	w.step(name, cluster.JobRunning)
}

func (w *world) sweep(name string) cluster.Sweep { sweep, _ := w.read().Sweep(name); return sweep }

func (w *world) trial(sweep string) cluster.Trial {
	t, _ := w.read().Trial(sweep + "/000000000")
	return t
}

func running(sweep string, n int64) cluster.Trial { return trialIn(sweep, n, cluster.TrialRunning) }

func putSweep(s cluster.Sweep) command.Change { return command.Change{Expect: s.Revision, Sweep: &s} }

func putTrial(t cluster.Trial) command.Change     { return command.Change{Expect: t.Revision, Trial: &t} }
func key(kind state.Kind, id string) *command.Key { return &command.Key{Kind: kind, ID: id} }
func checkJob(j cluster.Job, at int) command.Change {
	return command.Change{Expect: j.Revision + uint64(at), Check: key(state.KindJob, j.Name)}
}

func trialIn(sweep string, n int64, state cluster.TrialState) cluster.Trial {
	return cluster.Trial{Sweep: sweep, Number: n, Config: []float64{0.5, math.NaN()}, State: state}
}

// begun is a sweep with its first trial, in the record that makes it.
func (w *world) begun(name string) command.Record {
	sweep := w.sweep(name)
	sweep.Next, sweep.Counts.Running = sweep.Next+1, sweep.Counts.Running+1
	return record(putSweep(sweep), putTrial(running(name, sweep.Next-1)))
}

func TestTrialsChangeWithTheirSweepOnly(t *testing.T) {
	w := newWorld(t)
	w.sweeping("s")
	first := w.begun("s")
	w.refuses(record(first.Changes[1]), fault.Invalid, `sweep "s": the record must put it with its trials`)
	w.refuses(record(first.Changes[0]), fault.Invalid, `sweep "s": counts`)
	wrong := w.begun("s")
	wrong.Changes[1].Trial.Number = 4
	w.refuses(wrong, fault.Conflict, "the next trial has number 0")
	w.must(first)
	w.refuses(first, fault.Conflict, `sweep "s" is at revision`)

	sweep, trial := w.sweep("s"), w.trial("s")
	if !trial.Equal(w.trial("s")) || trial.Revision != sweep.Revision {
		t.Fatalf("%+v, %+v", sweep, trial)
	}
	done := func(change func(*cluster.Sweep, *cluster.Trial)) command.Record {
		s, t := sweep, trial
		s.Order, t.Order, t.State, t.Values = 1, 1, cluster.TrialComplete, []float64{3}
		s.Counts = cluster.TrialCounts{Complete: 1}
		change(&s, &t)
		return record(putTrial(t), putSweep(s))
	}
	for _, c := range []struct {
		change func(*cluster.Sweep, *cluster.Trial)
		kind   fault.Kind
		text   string
	}{
		{func(_ *cluster.Sweep, t *cluster.Trial) { t.Order = 0 }, fault.Invalid, "order: is 0"},
		{func(s *cluster.Sweep, _ *cluster.Trial) { s.Order = 0 }, fault.Invalid, "a trial has 1, the sweep 0"},
		{func(_ *cluster.Sweep, t *cluster.Trial) { t.Config = []float64{0.25, math.NaN()} }, fault.Invalid, "config and by never change"},
		{func(_ *cluster.Sweep, t *cluster.Trial) { t.By = "eve" }, fault.Invalid, "config and by never change"},
		{func(_ *cluster.Sweep, t *cluster.Trial) { t.Lease = 7 }, fault.Invalid, "belongs to nobody"},
		{func(_ *cluster.Sweep, t *cluster.Trial) { t.Revision++ }, fault.Conflict, "read it again"},
		{func(s *cluster.Sweep, _ *cluster.Trial) { s.Counts = cluster.TrialCounts{Failed: 1} }, fault.Invalid, "its trials make"},
		{func(s *cluster.Sweep, _ *cluster.Trial) { s.Next = 2 }, fault.Invalid, "counts"},
	} {
		w.refuses(done(c.change), c.kind, c.text)
	}
	w.must(done(func(*cluster.Sweep, *cluster.Trial) {}))
	trial, sweep = w.trial("s"), w.sweep("s")
	again := trial
	again.State, again.Order = cluster.TrialFailed, 2
	sweep.Order, sweep.Counts = 2, cluster.TrialCounts{Failed: 1}
	w.refuses(record(putSweep(sweep), putTrial(again)), fault.Conflict, "is complete: it does not change any more")
	for range w.read().LiveTrialsOf("s") {
		t.Error("a trial that has ended lives")
	}
}

func TestAJobMakesOthersOnlyWhileItGoesOn(t *testing.T) {
	w := newWorld(t)
	w.sweeping("s")
	child := submission("s-t0")
	made := func(checks ...command.Change) command.Record {
		job, gang := *child.Changes[0].Job, *child.Changes[1].Gang
		job.Parent = "s"
		return record(append(checks, command.Change{Job: &job}, command.Change{Gang: &gang})...)
	}
	w.refuses(made(), fault.Invalid, `must check its parent "s" too`)
	w.refuses(made(checkJob(w.job("s"), 1)), fault.Conflict, `job "s" is at revision`)
	w.refuses(record(command.Change{Expect: 1, Check: key(state.KindQueue, cluster.DefaultQueue)}), fault.Invalid, "checks jobs and sweeps only")
	w.must(made(checkJob(w.job("s"), 0)))
	moved := w.job("s-t0")
	moved.Parent = ""
	w.refuses(w.putJob(moved), fault.Invalid, "parent: it never changes")

	parent := w.job("s")
	parent.Cancel = true
	w.must(w.putJob(parent))
	late := made(checkJob(w.job("s"), 0))
	late.Changes[1].Job.Name, late.Changes[2].Gang.Job = "s-t1", "s-t1"
	w.refuses(late, fault.Conflict, `its parent "s" is to end`)
	w.step("s", cluster.JobStopping, cluster.JobCancelled)

	w.refuses(record(command.Change{Expect: w.job("s").Revision, Delete: key(state.KindJob, "s")}), fault.Conflict, "has a sweep")
	w.must(record(command.Change{Expect: w.sweep("s").Revision, Delete: key(state.KindSweep, "s")}))
	w.refuses(record(command.Change{Expect: w.job("s").Revision, Delete: key(state.KindJob, "s")}), fault.Conflict, `has made job "s-t0"`)
	w.step("s-t0", cluster.JobCancelled)
	w.must(record(command.Change{Expect: w.job("s-t0").Revision, Delete: key(state.KindJob, "s-t0")}))
	w.must(record(command.Change{Expect: w.job("s").Revision, Delete: key(state.KindJob, "s")}))
}

func TestTrialsAreDeletedAfterTheirSweep(t *testing.T) {
	w := newWorld(t)
	w.sweeping("s")
	w.must(w.begun("s"))
	drop := func() command.Record {
		return record(command.Change{Expect: w.trial("s").Revision, Delete: key(state.KindTrial, "s/000000000")})
	}
	sweep := func() command.Record {
		return record(command.Change{Expect: w.sweep("s").Revision, Delete: key(state.KindSweep, "s")})
	}
	w.refuses(drop(), fault.Conflict, "delete that first")
	w.refuses(sweep(), fault.Conflict, "cancel that first")
	w.step("s", cluster.JobStopping, cluster.JobCancelled)
	late := w.begun("s")
	w.refuses(late, fault.Conflict, "has cancelled: it does not change any more")
	w.must(sweep())
	w.refuses(record(command.Change{Expect: w.job("s").Revision, Delete: key(state.KindJob, "s")}), fault.Conflict, "delete its trials first")
	w.must(drop())
	w.must(record(command.Change{Expect: w.job("s").Revision, Delete: key(state.KindJob, "s")}))
	w.refuses(record(putTrial(running("s", 0))), fault.Conflict, "its sweep does not exist")
}
