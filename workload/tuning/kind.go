package tuning

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/training"
)

// Kind is the tuning kind of job.
type Kind struct{}

var (
	_ workload.Kind     = Kind{}
	_ workload.Foreseer = Kind{}
)

// Check reports every mistake in a spec.
func (Kind) Check(data []byte) cluster.Problems {
	_, problems := Parse(data)
	return problems
}

// Reconcile makes the sweep of a new job, and that is all: it moves along beside the other
// jobs, since working out what to try next takes longer than they should wait. See Search.
func (Kind) Reconcile(view workload.View, job cluster.Job, now int64) workload.Changes {
	if view.Sweep != nil || job.State.Ended() {
		return workload.Changes{}
	}
	spec, err := read(job.Spec)
	if err != nil {
		return workload.Fail(view, job, now, "its spec cannot be read: "+err.Error())
	}
	sweep := cluster.Sweep{Job: job.Name, Parallel: spec.Parallel, Budget: spec.Budget.cluster()}
	if sweep.Parallel == 0 {
		sweep.Parallel = 1
		if spec.Trial == nil {
			sweep.Parallel = cluster.MaxParallel // as many as workers ask
		}
	}
	return workload.Changes{Sweep: &sweep}
}

// Foresee makes the gang of the first trial.
func (Kind) Foresee(job cluster.Job, now int64) []cluster.Gang {
	show, err := NewShower(job.Spec)
	if err != nil || show.spec.Trial == nil {
		return nil
	}
	filled, err := show.TrialSpec(cluster.Trial{Config: show.space.Start()})
	if err != nil {
		return nil
	}
	child := cluster.Job{
		Name: job.Name, Kind: cluster.KindTraining, Owner: job.Owner, Queue: job.Queue, Spec: filled, State: cluster.JobQueued,
	}
	return training.Kind{}.Reconcile(workload.View{}, child, now).Gangs
}

// WarmStart are the earlier sweeps that a spec names.
func WarmStart(spec []byte) []string {
	s, err := read(spec)
	if err != nil {
		return nil
	}
	return s.WarmStart
}
