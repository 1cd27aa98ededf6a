package processing

import (
	"fmt"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/strictjson"
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
	var gang workload.OneGang
	if len(view.Gangs) > 0 || job.State.Ended() {
		return gang.Run(view, job, now)
	}
	var s Spec
	if problems := strictjson.Decode(job.Spec, &s); len(problems) > 0 {
		return workload.Fail(view, job, now, "its spec cannot be read: "+strings.ReplaceAll(problems.Error(), "\n", "; "))
	}
	roles, err := s.Roles()
	if err != nil {
		return workload.Fail(view, job, now, fmt.Sprintf("its tasks cannot be made: %s", err))
	}
	gang.Roles = roles
	return gang.Run(view, job, now)
}
