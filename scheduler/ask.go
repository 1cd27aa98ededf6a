package scheduler

import (
	"cmp"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/past"
	"github.com/clary-ml/clary/scheduler/room"
	"github.com/clary-ml/clary/scheduler/share"
)

// Ask is a gang as the scheduler sees it: who comes first, and what is needed.
type Ask struct {
	ID        string
	Job       string
	Queue     string
	Owner     string
	Labels    map[string]string // of its job
	Attempt   int32
	Revision  uint64
	Priority  int32
	Submitted int64
	NotBefore int64
	Since     int64 // since when it finds no room, as another Cluster knew; 0 if none did
	Held      bool
	Stop      bool
	// Lasts is how long it holds its room once it has it: its limit, or what those like it took. 0 is not
	// known. Who outlives it loses nothing: others that counted on it wait longer.
	Lasts   time.Duration
	Resumes bool          // it goes on from checkpoints
	Fixed   bool          // once it runs, it is not evicted and not resized
	Firm    bool          // since its job says so
	Resized []int64       // when it was, lately
	Class   past.Class    // of the jobs that are likely to last as long
	Ran     time.Duration // its earlier attempts together
	Limit   time.Duration // of all it may run; 0 is no limit
	Shape   *room.Shape   // what it needs at least

	needs *Needs
}

// NewAsk reads a gang.
func NewAsk(gang cluster.Gang) Ask {
	needs := NewNeeds(gang.Job, gang.Roles)
	return Ask{
		ID: gang.ID(), Job: gang.Job, Queue: gang.Queue, Owner: gang.Owner, Labels: gang.Labels,
		Attempt: gang.Attempt, Revision: gang.Revision, Priority: gang.Priority, Submitted: gang.Submitted,
		NotBefore: gang.NotBefore, Held: gang.Held, Stop: gang.Stop, Lasts: max(0, gang.MaxRuntime-gang.Ran),
		Fixed: gang.NonPreemptible || gang.Handover, Firm: gang.NonPreemptible, Resumes: resumes(gang), Resized: gang.Resized, Shape: needs.Least().Shape, needs: needs,
		Class: classOf(gang), Ran: gang.Ran, Limit: gang.MaxRuntime,
	}
}

// classOf is the gang's class, as far as it knows its job.
func classOf(gang cluster.Gang) past.Class {
	return past.ClassOf(cluster.Job{Owner: gang.Owner, Name: gang.Job}, gang)
}

// ShapeIn is a shape of the ask in a room where others may keep it away.
func (a *Ask) ShapeIn(m *room.Map, s *room.Shape) *room.Shape {
	if g := (room.Guest{ID: a.ID, Job: a.Job, Labels: a.Labels}); m.Shuns(&g) {
		return s.For(&g)
	}
	return s
}

// Needs is what it needs, in every size that it may have.
func (a Ask) Needs() *Needs { return a.needs }

// Waits reports whether the ask may not be placed at this time, however much is free.
func (a Ask) Waits(now int64) bool { return a.Held || a.Stop || a.NotBefore > now }

// Before orders asks: higher priority first, then who was submitted first.
func Before(a, b Ask) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Submitted, b.Submitted), cmp.Compare(a.ID, b.ID))
}

// claim is what the gang takes of its queue.
func (a *Ask) claim(amount cluster.Amount) share.Claim {
	return share.Claim{Queue: a.Queue, Owner: a.Owner, Job: a.Job, Firm: a.Firm, Amount: amount}
}
