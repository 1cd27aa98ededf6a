package processing

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload"
)

// Kind is the processing kind of job.
type Kind struct{}

var _ workload.Kind = Kind{}

// Check reports every mistake in a spec.
func (Kind) Check(data []byte) cluster.Problems {
	_, problems := Parse(data)
	return problems
}

// Reconcile is one step of a processing job: a gang that runs until all have succeeded. Where its
// outputs go stands in its gang, so the spec is read only to make that.
func (Kind) Reconcile(view workload.View, job cluster.Job, now int64) workload.Changes {
	return workload.RunRoles[Spec](view, job, now)
}
