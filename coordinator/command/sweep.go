package command

import (
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// sweepPut is how a record changes a sweep: what it was, and what its trials add up to.
type sweepPut struct {
	old    cluster.Sweep
	counts cluster.TrialCounts // change of each
	made   int64
	order  uint64 // the last that a trial or a point of its curve has got
}

// putSweep makes a sweep together with nothing else, or changes it.
func (w *recording) putSweep(sweep cluster.Sweep, expected uint64) error {
	old, existed := w.Sweep(sweep.Job)
	if err := w.expect(state.KindSweep, sweep.Job, expected, old.Revision); err != nil {
		return err
	}
	if err := invalid(state.KindSweep, sweep.Job, sweep.Validate()); err != nil {
		return err
	}
	job, exists := w.Job(sweep.Job)
	switch {
	case !exists:
		return fault.New(fault.Conflict, "sweep %q: its job does not exist", sweep.Job)
	case job.Kind != cluster.KindTuning:
		return fault.New(fault.Invalid, "sweep %q: its job is of kind %s", sweep.Job, job.Kind)
	case job.State.Ended() && !w.named[Key{Kind: state.KindJob, ID: sweep.Job}]:
		return fault.New(fault.Conflict, "sweep %q: its job has %s: it does not change any more", sweep.Job, job.State)
	case sweep.Order < old.Order:
		return fault.New(fault.Invalid, "sweep %q: order: %d comes before %d", sweep.Job, sweep.Order, old.Order)
	case !existed && sweep.Next != 0:
		return fault.New(fault.Invalid, "sweep %q: next: a new sweep has no trials", sweep.Job)
	}
	w.PutSweep(sweep)
	w.sweepOf(sweep.Job, old)
	return nil
}

// sweepOf is how the record changes a sweep so far.
func (w *recording) sweepOf(job string, old cluster.Sweep) *sweepPut {
	for _, put := range w.sweeps {
		if put.old.Job == job {
			return put
		}
	}
	if old.Job == "" { // it is new
		old.Job = job
	}
	put := &sweepPut{old: old}
	w.sweeps = append(w.sweeps, put)
	return put
}

// putTrial makes the next trial of a sweep, or changes one that has not ended.
func (w *recording) putTrial(trial cluster.Trial, expected uint64) error {
	id := trial.ID()
	old, existed := w.Trial(id)
	if err := w.expect(state.KindTrial, id, expected, old.Revision); err != nil {
		return err
	}
	if err := invalid(state.KindTrial, id, trial.Validate()); err != nil {
		return err
	}
	sweep, exists := w.Sweep(trial.Sweep)
	if !exists {
		return fault.New(fault.Conflict, "trial %q: its sweep does not exist", id)
	}
	put := w.sweepOf(trial.Sweep, sweep)
	if existed {
		if err := trialMayBecome(old, trial); err != nil {
			return err
		}
		*put.counts.Of(old.State)--
	} else {
		if trial.Number != put.old.Next+put.made {
			return fault.New(fault.Conflict, "trial %q: the next trial has number %d", id, put.old.Next+put.made)
		}
		put.made++
	}
	*put.counts.Of(trial.State)++
	put.order = max(put.order, trial.Order)
	for _, point := range trial.Curve {
		put.order = max(put.order, point.Order)
	}
	w.PutTrial(trial)
	return nil
}

// trialMayBecome says whether a stored trial may be replaced by another form of it.
func trialMayBecome(old, trial cluster.Trial) error {
	if old.State.Ended() {
		return fault.New(fault.Conflict, "trial %q is %s: it does not change any more", old.ID(), old.State)
	}
	if old.State != trial.State && !old.State.CanBecome(trial.State) {
		return fault.New(fault.Conflict, "trial %q: state: %s cannot become %s", old.ID(), old.State, trial.State)
	}
	same := trial
	same.Config = old.Config
	if !same.Equal(trial) || old.By != trial.By {
		return fault.New(fault.Invalid, "trial %q: config and by never change", old.ID())
	}
	return nil
}

// checkSweeps holds each sweep that the record touches against its trials: it was put too,
// its counts are theirs, and the order of results goes on.
func (w *recording) checkSweeps() error {
	for _, put := range w.sweeps {
		name := put.old.Job
		if !w.named[Key{Kind: state.KindSweep, ID: name}] {
			return fault.New(fault.Invalid, "sweep %q: the record must put it with its trials, at the revision it was read", name)
		}
		now, exists := w.Sweep(name)
		if !exists {
			continue // it was deleted, and its trials are not touched
		}
		counts := put.old.Counts
		for _, state := range []cluster.TrialState{
			cluster.TrialWaiting, cluster.TrialRunning, cluster.TrialPaused, cluster.TrialComplete, cluster.TrialStopped,
			cluster.TrialFailed, cluster.TrialInfeasible, cluster.TrialCancelled,
		} {
			*counts.Of(state) += *put.counts.Of(state)
		}
		if now.Counts != counts || now.Next != put.old.Next+put.made {
			return fault.New(fault.Invalid, "sweep %q: counts: %+v, next %d; its trials make %+v, next %d", name, now.Counts, now.Next, counts, put.old.Next+put.made)
		}
		if put.order > now.Order {
			return fault.New(fault.Invalid, "sweep %q: order: a trial has %d, the sweep %d", name, put.order, now.Order)
		}
	}
	return nil
}

// check demands that a noun is as it was read.
func (w *recording) check(key Key, expected uint64) error {
	if key.Kind != state.KindJob && key.Kind != state.KindSweep {
		return fault.New(fault.Invalid, "check %s %q: a record checks jobs and sweeps only", cluster.Clip(string(key.Kind)), cluster.Clip(key.ID))
	}
	current, _ := w.revision(key)
	return w.expect(key.Kind, key.ID, expected, current)
}

// checkParent lets a job make another only while it goes on itself, and knows of it.
func (w *recording) checkParent(job cluster.Job) error {
	if job.Parent == "" {
		return nil
	}
	parent, exists := w.Job(job.Parent)
	switch {
	case !exists:
		return fault.New(fault.Conflict, "job %q: its parent %q does not exist", job.Name, cluster.Clip(job.Parent))
	case parent.State.Ended() || parent.Cancel || parent.State == cluster.JobStopping:
		return fault.New(fault.Conflict, "job %q: its parent %q is to end, or has: it makes no more jobs", job.Name, parent.Name)
	case parent.Owner != job.Owner:
		return fault.New(fault.Invalid, "job %q: owner: it is %q, its parent's %q", job.Name, job.Owner, parent.Owner)
	case !w.named[Key{Kind: state.KindJob, ID: job.Parent}]:
		return fault.New(fault.Invalid, "job %q: the record must check its parent %q too, before it, at the revision it was read", job.Name, parent.Name)
	}
	return nil
}

// deleteSweep goes before its trials: they are many, and are deleted in several records.
func (w *recording) deleteSweep(name string) error {
	if job, exists := w.Job(name); exists && !job.State.Ended() {
		return fault.New(fault.Conflict, "sweep %q: its job is %s: cancel that first", name, job.State)
	}
	w.DeleteSweep(name)
	return nil
}

func (w *recording) deleteTrial(id string) error {
	if name, _, _ := strings.Cut(id, "/"); w.HasSweep(name) {
		return fault.New(fault.Conflict, "trial %q: its sweep exists: delete that first", id)
	}
	w.DeleteTrial(id)
	return nil
}
