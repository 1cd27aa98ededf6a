package training

import (
	"fmt"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload"
)

// Kind is the training kind of job.
type Kind struct{}

var _ workload.Kind = Kind{}

// Check reports every mistake in a spec.
func (Kind) Check(data []byte) cluster.Problems {
	_, problems := Parse(data)
	return problems
}

// Reconcile is one step of a training job: a gang that runs until all have succeeded.
// The spec is read only where it is needed, and not checked again: a job that was
// accepted runs on under a newer version with stricter rules.
func (Kind) Reconcile(view workload.View, job cluster.Job, now int64) workload.Changes {
	var gang workload.OneGang
	if len(view.Gangs) > 0 && job.State != cluster.JobPublishing || job.State.Ended() {
		return gang.Run(view, job, now)
	}
	var s Spec
	if err := workload.ReadSpec(job, &s); err != nil {
		return workload.Fail(view, job, now, err.Error())
	}
	gang.Output = s.Output
	if len(view.Gangs) == 0 {
		roles, err := s.Roles()
		if err != nil {
			return workload.Fail(view, job, now, fmt.Sprintf("its tasks cannot be made: %s", err))
		}
		gang.Roles = roles
	}
	return gang.Run(view, job, now)
}
