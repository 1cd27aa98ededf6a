// Package command is the sealed set of what the coordinators agree on: each command
// knows how to apply itself to the state.
//
// Apply reads the transaction, its own fields and the proposer's clock that is handed to
// it, and nothing else, so every replica comes to the same answer. An error refuses the
// command, and a refused command changes nothing. Record is a list of puts and deletes of
// what reconcilers own; all other commands are the ledger's, and guard what must never go
// wrong: no core, device or port is given twice, a gang is placed whole or not at all, and
// an old attempt never speaks for a newer one. See ../DESIGN.md.
package command

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
)

// Command is one of Record, CommitPlan, ReportTasks, PutNode, SetNodeState, SetNodeTaints,
// SetNodeCached, RemoveNode, Revoke, Publish and RaiseFormat, or one of these that is Audited.
type Command interface {
	// Apply changes the state, or answers with an error and leaves what it wrote to be
	// dropped. now is the proposer's clock in Unix nanoseconds.
	Apply(tx *state.Tx, now int64) (Result, error)
}

// Result is the answer to one command.
type Result struct {
	Revision uint64 // of the state after the command; 0 if it was refused
	Err      error  // why it was refused, with its kind; nil if it was accepted
	// Refused are the parts that were left out of an accepted command: gangs of a
	// CommitPlan, tasks of a ReportTasks.
	Refused []Refusal
}

// Refusal says which part of a command was left out, and why.
type Refusal struct {
	ID     string
	Reason string
}

// Record puts and deletes jobs, gangs, queues, tokens, secrets, deeds, sweeps, trials, endpoints,
// models and their versions, and puts the cluster's settings: all of them, or none if one is not at the revision it was read, or breaks a rule.
//
// Put the owning job in the same record as a gang, so that a job that was cancelled
// meanwhile gets no new work; only a gang whose Stop is all that changes needs no job.
// A put that would change nothing only checks the revision, and keeps it. So does a Check,
// which need not carry the noun.
//
// A trial is put together with its sweep, at the revision that was read: that puts everything
// that happens to a sweep's trials into one order. So is a version of a model when it comes or goes.
type Record struct {
	Changes []Change
}

// Change is one put or delete. Exactly one of its pointers is set.
type Change struct {
	Expect uint64 // the revision that was read; 0: it must not exist
	Job    *cluster.Job
	Gang   *cluster.Gang
	Queue  *cluster.Queue
	Token  *cluster.Token
	Secret *cluster.Secret
	Trust  *cluster.Trust // of which there is one
	Deed   *cluster.Deed
	Sweep  *cluster.Sweep
	Trial  *cluster.Trial
	Model  *cluster.Model
	// Endpoint is put together with its job, or a check of it.
	Endpoint *cluster.Endpoint
	// Version is of a model.
	Version *cluster.ModelVersion
	// Archived is what stays of a job that is archived.
	Archived *cluster.Archived
	// Settings are the cluster's.
	Settings *cluster.Settings
	Delete   *Key
	Check    *Key // a job or sweep, which is not changed
}

// Key names a stored noun: a job, gang, queue, token, secret, sweep, trial, model or version. Deleting a job
// deletes its gangs, tasks, publication and endpoint; its sweep's trials are deleted before.
type Key struct {
	Kind state.Kind
	ID   string
}

// CommitPlan places gangs, and has others make room. Each placement and each eviction is checked on
// the state as it is and accepted or left out alone.
type CommitPlan struct {
	Placements []cluster.Placement
	Evictions  []cluster.Eviction
}

// ReportTasks is what an agent says of its tasks. What is out of date is left out.
type ReportTasks struct {
	Node    string
	Reports []TaskReport
}

// TaskReport is the status of one task.
type TaskReport struct {
	Task   string
	Status cluster.TaskStatus
}

// PutNode is an agent introducing its machine: for the first time, after a restart, or
// after it was lost. The state it says it is in does not count.
type PutNode struct {
	Node cluster.Node
}

// SetNodeState drains, resumes or loses a node. Losing it loses its tasks.
type SetNodeState struct {
	Node   string
	State  cluster.NodeState
	Reason string
	Expect uint64 // the node's revision; 0: any
	// Of a node that drains: see cluster.Node.
	Empties  bool
	Deadline int64
}

// SetNodeTaints replaces a node's taints. What runs there stays.
type SetNodeTaints struct {
	Node   string
	Taints []cluster.Taint
	Expect uint64 // the node's revision; 0: any
}

// SetNodeCached replaces what a node tells of its cache. Nothing else of the node changes, its state least of all.
type SetNodeCached struct {
	Node   string
	Cached []uint32 // digests of inputs, ascending
}

// RemoveNode forgets a lost node for good.
type RemoveNode struct {
	Node string
}

// Revoke has nobody believe a member any more. An agent's node is lost with it.
type Revoke struct {
	Revocation cluster.Revocation
}

// Publish makes an attempt's uploads the job's outputs.
type Publish struct {
	Job     string
	Gang    string // ID, "job/gang"
	Attempt int32
	Outputs []cluster.Output
}

// Audited is a command and who asked for it: both are in the log, or neither is. What is refused leaves
// no trace here, and goes on record by itself.
type Audited struct {
	Command Command
	Deed    cluster.Deed
}

// Run applies a command to a batch and turns a refusal into its result.
func Run(w *state.Writer, c Command, now int64) Result {
	var result Result
	revision, err := w.Do(func(tx *state.Tx) error {
		tx.Clock(now)
		var err error
		result, err = c.Apply(tx, now)
		return err
	})
	if err != nil {
		return Result{Err: err}
	}
	result.Revision = revision
	return result
}
