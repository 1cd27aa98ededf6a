package supervisor

import (
	"github.com/clary-ml/clary/agent/contract"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/staging"
)

// share is the task's part of sharded inputs: one for each task of its role.
func share(assignment ledger.Assignment) staging.Share {
	names, _ := contract.Task{Assignment: assignment}.Hosts()
	return staging.Share{Index: int(assignment.Task.Index), Count: len(names)}
}
