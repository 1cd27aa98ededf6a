// Package workload is the seam between the cluster and the kinds of job. A kind knows
// what its spec means, and decides what should happen to a job next; everything else
// (the log, the planner, the agents) knows no kind.
//
// All of it is pure: a kind reads a view and answers with changes. Whoever runs it may
// run it again at any time, on a newer view, and once nothing is left to do it answers
// with no changes.
package workload

import (
	"github.com/clary-ml/clary/cluster"
)

// Kind is what a sort of job means.
type Kind interface {
	// Check reports every mistake in a spec that a user submits.
	Check(spec []byte) cluster.Problems
	// Reconcile says what should change, seen from the view: one step of the job's
	// life. The job's spec has passed Check, perhaps in an older version of Clary.
	Reconcile(view View, job cluster.Job, now int64) Changes
}

// Foreseer is a kind whose jobs make others later.
type Foreseer interface {
	// Foresee makes gangs like those that will be made, so that a submission can be refused
	// which could never run.
	Foresee(job cluster.Job, now int64) []cluster.Gang
}

// View is what belongs to one job, from one snapshot.
type View struct {
	Gangs       []cluster.Gang
	Tasks       []cluster.Task // of all attempts that are kept
	Publication *cluster.Publication
	Sweep       *cluster.Sweep
	Endpoint    *cluster.Endpoint
}

// Changes are what a kind wants. The zero Changes wants nothing.
type Changes struct {
	Job   *cluster.Job   // to put in place of the one it read
	Gangs []cluster.Gang // to put; Revision is that of the gang it read, 0 for a new one
	Sweep *cluster.Sweep // to put; of a job that has none yet
	// Endpoint is to be put, in the place of the one that was read; Revision is that one's.
	Endpoint *cluster.Endpoint
	Delete   []cluster.Gang // of an endpoint: replicas that are no more
	Publish  *Publish       // outputs to commit
	Deliver  []Copy         // objects to copy; when all are there, the job is Delivered
	// Register has the job's model registered with it, before the job is Delivered: see
	// cluster.Job.Register.
	Register bool
	WakeAt   int64 // reconcile again at this instant even if nothing happens; 0 is never
}

// Publish commits the outputs of one attempt of a gang.
type Publish struct {
	Gang    string // ID
	Attempt int32
	Outputs []cluster.Output
}

// Copy is an object to bring to where the user asked for it: one as it is, several .tar.gz
// as one that holds what is in all of them.
type Copy struct {
	From []string
	To   string
	// Listed says that From are listings: what they name goes below To, which ends with a slash.
	Listed bool
	// Live is the prefix of a job's attempts whose tasks have put files of an output at To while
	// they ran, each after it was below ATTEMPT/TASK/outputs/OUTPUT/: what is there and in no
	// listing is removed from To.
	Live, Output string
}

// Empty reports whether nothing is to change now. A time to wake is no change.
func (c Changes) Empty() bool {
	return !c.Recorded() && c.Publish == nil && len(c.Deliver) == 0 && !c.Register
}

// Recorded reports whether nouns are to be put or deleted.
func (c Changes) Recorded() bool {
	return c.Job != nil || len(c.Gangs) > 0 || c.Sweep != nil || c.Endpoint != nil || len(c.Delete) > 0
}

// Gang returns the named gang of the view.
func (v View) Gang(id string) (cluster.Gang, bool) {
	for _, gang := range v.Gangs {
		if gang.ID() == id {
			return gang, true
		}
	}
	return cluster.Gang{}, false
}

// Attempt returns the tasks of one attempt of a gang, in the order of the view.
func (v View) Attempt(gang string, attempt int32) []cluster.Task {
	var tasks []cluster.Task
	for _, task := range v.Tasks {
		if task.Gang == gang && task.Attempt == attempt {
			tasks = append(tasks, task)
		}
	}
	return tasks
}
