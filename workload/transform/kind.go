package transform

import (
	"fmt"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload"
)

// Kind is the transform kind of job.
type Kind struct{}

var _ workload.Kind = Kind{}

// Check reports every mistake in a spec.
func (Kind) Check(data []byte) cluster.Problems {
	_, problems := Parse(data)
	return problems
}

// Reconcile is one step of a transform job: a gang of servers and drivers that runs until all drivers
// have succeeded. Objects that have no output then make the job failed, with the outputs of all
// others published, as SageMaker has it. The spec is read only to make the gang.
func (Kind) Reconcile(view workload.View, job cluster.Job, now int64) workload.Changes {
	return judge(view, workload.RunRoles[Spec](view, job, now))
}

// judge looks at what the drivers of a job that would succeed say of objects without an output.
func judge(view workload.View, changes workload.Changes) workload.Changes {
	if changes.Job == nil || changes.Job.State != cluster.JobSucceeded {
		return changes
	}
	var said []string
	for _, task := range view.Attempt(changes.Job.Name+"/"+workload.MainGang, changes.Job.Attempt) {
		if task.Role == roleDriver && task.Status.Message != "" {
			said = append(said, fmt.Sprintf("%s-%d: %s", task.Role, task.Index, task.Status.Message))
		}
	}
	if len(said) == 0 {
		return changes
	}
	job := *changes.Job
	job.State, job.Reason = cluster.JobFailed, strings.Join(said, "; ")+"; all other outputs are there"
	changes.Job = &job
	return changes
}
