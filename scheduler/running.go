package scheduler

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/evict"
	"github.com/clary-ml/clary/scheduler/order"
	"github.com/clary-ml/clary/scheduler/past"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/share"
)

// Running is a gang that holds room.
type Running struct {
	ID       string
	Job      string
	Queue    string
	Owner    string
	Attempt  int32
	Revision uint64
	Priority int32

	Started    int64 // when it got its room
	Checkpoint int64 // from when it would go on; 0 if it would begin again
	Until      int64 // when its room is expected to be free; 0 if nobody knows
	Restart    time.Duration
	Submitted  int64
	Class      past.Class    // of the jobs that are likely to last as long
	Ran        time.Duration // its earlier attempts together
	Limit      time.Duration // of all it may run; 0 is no limit
	Done       int64         // of Total, as its tasks report; 0 if they do not
	Total      int64

	Allocations []cluster.Allocation // of its tasks that have not ended
	Counts      []int32              // tasks by role, of an elastic gang
	Resized     []int64              // when it was, lately
	Labels      map[string]string    // of its job
	Fixed       bool                 // it is not evicted and not resized
	Firm        bool                 // since its job says so
	Resumes     bool                 // it goes on from checkpoints: so being of another size does not cost it all its work
	Stops       bool                 // it was told to end
	For         string               // with Stops: who gets its room; "" is nobody in particular

	needs *Needs
}

// NewRunning reads a gang and its tasks; those of other attempts count for nothing. It is false if no task of it holds
// anything.
func NewRunning(gang cluster.Gang, tasks []cluster.Task) (Running, bool) {
	r := Running{
		ID: gang.ID(), Job: gang.Job, Queue: gang.Queue, Owner: gang.Owner,
		Attempt: gang.Attempt, Revision: gang.Revision, Priority: gang.Priority,
		Labels: gang.Labels, Counts: gang.Granted, Resized: gang.Resized, Stops: gang.Stop, For: gang.For,
		Submitted: gang.Submitted, Class: classOf(gang), Ran: gang.Ran, Limit: gang.MaxRuntime,
		Fixed: gang.NonPreemptible || gang.Handover, Firm: gang.NonPreemptible, Resumes: resumes(gang), needs: NewNeeds(gang.Job, gang.Roles),
	}
	for i := range tasks {
		task := &tasks[i]
		if task.Attempt != gang.Attempt {
			continue
		}
		if r.Started == 0 || task.Assigned < r.Started {
			r.Started = task.Assigned
		}
		r.Report(task.Status.Progress)
		if !task.Status.State.Ended() {
			r.Allocations = append(r.Allocations, task.Allocation)
		}
	}
	if gang.MaxRuntime > 0 {
		r.Until = r.Started + int64(max(0, gang.MaxRuntime-gang.Ran))
	}
	return r, len(r.Allocations) > 0
}

// Report takes in what one of its tasks says of its progress.
func (r *Running) Report(p cluster.Progress) {
	r.Checkpoint = max(r.Checkpoint, p.Checkpoint)
	if p.Total > r.Total || p.Total == r.Total && p.Step > r.Done {
		r.Done, r.Total = p.Step, p.Total
	}
}

// runner is a gang that runs.
type runner struct {
	Running
	line   *line
	amount cluster.Amount
	claim  *share.Claim // what is charged for it, nil if nothing could be
	step   int          // its size
	rank   order.Rank   // in a line that is ordered by what is left to do
	known  *work
}

// Run notes a gang that holds room, in place of what was known of it. The room itself is told by SetNode.
func (c *Cluster) Run(r Running) {
	old := c.running[r.ID]
	if old != nil && old.Revision == r.Revision && old.Attempt == r.Attempt && len(old.Allocations) == len(r.Allocations) {
		if old.Checkpoint != r.Checkpoint || old.Stops != r.Stops {
			c.gain() // it costs less to stop, or is no longer on its way
		}
		r.needs = old.needs
		old.Running = r
		old.progress(r.Done, r.Total)
		return
	}
	w := c.waiting[r.ID]
	if w != nil {
		c.unhold(r.ID)
		c.unwait(w)
	}
	if old != nil {
		c.unrun(old)
	}
	if w == nil && old == nil {
		c.wanted.note(r.needs)
	}
	c.run(r)
}

func (c *Cluster) run(r Running) *runner {
	run := &runner{Running: r, line: c.line(r.Queue), amount: c.amountOf(r.Allocations)}
	run.needs = c.needs.get(r.needs)
	run.step = run.needs.stepOf(r.Counts)
	run.known = c.workOf(r.ID, r.Class, r.Submitted)
	run.progress(r.Done, r.Total)
	run.claim = c.charge(share.Claim{Queue: r.Queue, Owner: r.Owner, Job: r.Job, Firm: r.Firm, Amount: run.amount})
	c.Room.Shield(r.ID, run.needs.away)
	c.running[r.ID], run.line.running[r.ID] = run, run
	if c.Room.House(r.ID, room.Tenant{Job: r.Job, Labels: r.Labels, At: r.Allocations}) {
		c.gain()
	}
	c.moves++
	return run
}

func (c *Cluster) unrun(run *runner) {
	delete(c.running, run.ID)
	delete(run.line.running, run.ID)
	c.release(run.claim)
	c.needs.release(run.needs)
	c.Room.Leave(run.ID)
	c.Room.Shield(run.ID, nil)
	c.moves++
}

// safe is the instant from which the gang would go on.
func (run *runner) safe() int64 { return max(run.Started, run.Checkpoint) }

// cost is what stopping the gang loses.
func (c *Cluster) cost(run *runner, now int64) int64 {
	return evict.Cost(evict.Weight(run.Allocations), run.safe(), now, c.restart(run))
}

// left is how long what was placed is left alone yet.
func (run *runner) left(now int64) time.Duration {
	least := run.line.queue.MinRuntime
	if least == 0 {
		least = cluster.DefaultMinRuntime
	}
	return least - time.Duration(now-run.Started)
}

// elastic reports whether the gang runs with more tasks than it must, and may be resized.
func (run *runner) elastic(now int64) bool {
	return run.step > 0 && run.Resumes && resizable(run.Resized, now)
}

// resumes reports whether a gang's tasks keep checkpoints.
func resumes(gang cluster.Gang) bool {
	return slices.ContainsFunc(gang.Roles, func(role cluster.Role) bool { return role.Program.Checkpoints })
}

// resizable reports whether a gang may be resized once more.
func resizable(resized []int64, now int64) bool {
	lately := 0
	for _, at := range resized {
		if at > now-int64(cluster.ResizeWindow) {
			lately++
		}
	}
	return lately < cluster.MaxResizes
}

// end is when a gang is expected to give its room back.
type end struct {
	at   int64
	late int // of those of whom nobody knows, the greater the later
	age  int // of them, how long they have run: doublings of unsaid
	run  *runner
}

const (
	// never is the end of what nobody knows the end of.
	never = math.MaxInt64
	// unsaid is how long what does not say when it ends may have run to be taken for what soon does.
	unsaid = time.Hour
	// lastsLong is how long what does not say when it ends has run when it may never, and long how late it then is.
	lastsLong = 16 * unsaid
	long      = 5
	// last is how much later endpoints are expected to end.
	last = 64
)

// ends lists what runs, those that end first before others. Of what nobody knows the end of, what has run for long is expected to
// go on for long (how long jobs last follows a power law: Harchol-Balter and Downey, SIGMETRICS 1996): it comes later with
// each doubling; of those that have run for about as long the oldest comes first. A job that nobody may stop counts from the start as one that may never end,
// and an endpoint comes after all jobs. Who has outlived what was expected of
// it is expected to last that long once more.
func (c *Cluster) ends(now int64) []end {
	ends := make([]end, 0, len(c.running))
	for _, l := range c.sorted {
		for _, run := range l.running { // sorted below
			ends = append(ends, run.end(now))
		}
	}
	slices.SortFunc(ends, func(a, b end) int {
		return cmp.Or(
			cmp.Compare(a.at, b.at), cmp.Compare(a.late, b.late), cmp.Compare(a.age, b.age), cmp.Compare(a.run.Started, b.run.Started), cmp.Compare(a.run.ID, b.run.ID),
		)
	})
	return ends
}

func (run *runner) end(now int64) end {
	switch {
	case run.Stops:
		return end{at: now + int64(time.Minute), run: run}
	case run.Until > now:
		return end{at: run.Until, run: run}
	case run.Until > 0:
		return end{at: now + max(int64(time.Minute), run.Until-run.Started), run: run}
	}
	e := end{at: never, age: bits.Len64(uint64(max(0, now-run.Started) / int64(unsaid))), run: run}
	switch e.late = e.age; {
	case run.Firm:
		e.late = max(e.age, long)
	case run.Fixed:
		e.late += last
	}
	return e
}
