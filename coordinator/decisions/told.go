// Package decisions records what the scheduler was told and what it decided, and repeats it: the same code, told
// the same things in the same order, decides the same, bit for bit. A record is bounded; each of its segments
// begins with all that the scheduler knew, so that each can be repeated by itself. See DESIGN.md.
package decisions

import (
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/share"
)

// Told is one thing that the scheduler was told or decided. Exactly one of its fields is set; nothing of it is
// changed once it is made.
type Told struct {
	Begin    *Begin
	Node     *Node
	NodeGone string
	Queues   *Queues
	Waits    *Wait
	Runs     *Run
	Rests    string // a gang
	Done     *Done
	Gone     string // a gang
	Pause    *Pause
	Count    *Count
	Advance  *Advance
	Recover  bool
	History  *History
	Learned  *scheduler.Learned // by one before
	Notes    *scheduler.Notes   // of one before
	Decided  *Decided
}

// Begin says that what follows is told to a scheduler that knows nothing.
type Begin struct {
	At      int64
	Version string // of the program that recorded it
}

// Node is a node as it is now.
type Node struct {
	cluster.Node
	Used cluster.Resources
}

// Queues are all queues.
type Queues struct{ All []cluster.Queue }

// Wait is a gang that waits, how long it is expected to run, and since when it finds no room, where that is known from
// before.
type Wait struct {
	Gang  cluster.Gang
	Lasts time.Duration
	Since int64
}

// Ask is the gang as the scheduler is told of it.
func (w *Wait) Ask() scheduler.Ask {
	ask := scheduler.NewAsk(w.Gang)
	ask.Lasts, ask.Since = w.Lasts, w.Since
	return ask
}

// Run is a gang that runs. What follows from the gang itself is not said again.
type Run struct {
	Gang        cluster.Gang
	Allocations []cluster.Allocation // of its tasks that have not ended
	Started     int64
	Checkpoint  int64
	Until       int64
	Restart     time.Duration
	Done, Total int64 // as it reports its progress
}

// Done is a gang that succeeded, and how long it ran for it.
type Done struct {
	Gang cluster.Gang
	Ran  time.Duration
}

// RunOf is what there is to record of a gang that runs.
func RunOf(gang cluster.Gang, r scheduler.Running) *Run {
	return &Run{Gang: gang, Allocations: r.Allocations, Started: r.Started, Checkpoint: r.Checkpoint, Until: r.Until, Restart: r.Restart, Done: r.Done, Total: r.Total}
}

// Running is the gang as the scheduler is told of it.
func (r *Run) Running() scheduler.Running {
	tasks := make([]cluster.Task, len(r.Allocations))
	for i, a := range r.Allocations {
		tasks[i] = cluster.Task{Attempt: r.Gang.Attempt, Allocation: a, Status: cluster.TaskStatus{State: cluster.TaskRunning}}
	}
	running, _ := scheduler.NewRunning(r.Gang, tasks)
	running.Allocations, running.Started, running.Checkpoint, running.Until, running.Restart = r.Allocations, r.Started, r.Checkpoint, r.Until, r.Restart
	running.Done, running.Total = r.Done, r.Total
	return running
}

// History is what a queue used before.
type History struct {
	Queue string
	share.History
}

// Count says that so many tasks more, or fewer, that are spread together are on a node.
type Count struct {
	Job, Spread, Node string
	Tasks             int
}

// Advance are allocations that were given out last: their ports are looked for last.
type Advance struct{ Allocations []cluster.Allocation }

// Pause keeps a gang from being planned for a while.
type Pause struct {
	Gang  string
	Until int64
}

// Decided is a plan. One that is empty counts too: that nothing was possible is remembered.
type Decided struct {
	Number int64 // from 1 in each segment
	Now    int64
	Plan   cluster.Plan
}

// To tells it to a scheduler.
func (t Told) To(c *scheduler.Cluster) {
	switch {
	case t.Node != nil:
		c.SetNode(t.Node.Node, t.Node.Used)
	case t.NodeGone != "":
		c.DeleteNode(t.NodeGone)
	case t.Queues != nil:
		_ = c.SetQueues(t.Queues.All) // refused is refused again
	case t.Waits != nil:
		c.Wait(t.Waits.Ask())
	case t.Runs != nil:
		c.Run(t.Runs.Running())
	case t.Done != nil:
		c.Succeeded(t.Done.Gang, t.Done.Ran)
	case t.Rests != "":
		c.Rest(t.Rests)
	case t.Count != nil:
		c.Room.Count(t.Count.Job, t.Count.Spread, t.Count.Node, t.Count.Tasks)
	case t.Advance != nil:
		c.Room.Advance(cluster.Plan{Placements: []cluster.Placement{{Allocations: t.Advance.Allocations}}})
	case t.History != nil:
		c.Remember(t.History.Queue, t.History.History)
	case t.Learned != nil:
		c.Learn(*t.Learned)
	case t.Notes != nil:
		c.Note(*t.Notes)
	case t.Recover:
		c.Recover()
	case t.Gone != "":
		c.Drop(t.Gone)
	case t.Pause != nil:
		c.Pause(t.Pause.Gang, t.Pause.Until)
	}
}
