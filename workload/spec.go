package workload

import (
	"fmt"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/strictjson"
)

// ReadSpec reads a job's spec into s, without checking it again: a job that was accepted runs on
// under a newer version with stricter rules. Its error is one line.
func ReadSpec(job cluster.Job, s any) error {
	if problems := strictjson.Decode(job.Spec, s); len(problems) > 0 {
		return fault.New(fault.Invalid, "its spec cannot be read: %s", strings.ReplaceAll(problems.Error(), "\n", "; "))
	}
	return nil
}

// RunRoles is one step of a job with one gang whose outputs go where its roles say. The spec is read
// only to make that gang.
func RunRoles[S interface {
	Roles() ([]cluster.Role, error)
}](view View, job cluster.Job, now int64,
) Changes {
	var gang OneGang
	if len(view.Gangs) > 0 || job.State.Ended() {
		return gang.Run(view, job, now)
	}
	var s S
	if err := ReadSpec(job, &s); err != nil {
		return Fail(view, job, now, err.Error())
	}
	roles, err := s.Roles()
	if err != nil {
		return Fail(view, job, now, fmt.Sprintf("its tasks cannot be made: %s", err))
	}
	gang.Roles = roles
	return gang.Run(view, job, now)
}
