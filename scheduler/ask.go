package scheduler

import (
	"cmp"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// Ask is a gang as the scheduler sees it: who comes first, and what is needed.
type Ask struct {
	ID        string
	Queue     string
	Attempt   int32
	Revision  uint64
	Priority  int32
	Submitted int64
	NotBefore int64
	Held      bool
	Stop      bool
	Shape     *room.Shape
}

// NewAsk reads a gang.
func NewAsk(gang cluster.Gang) Ask {
	return Ask{
		ID: gang.ID(), Queue: gang.Queue, Attempt: gang.Attempt, Revision: gang.Revision, Priority: gang.Priority, Submitted: gang.Submitted,
		NotBefore: gang.NotBefore, Held: gang.Held, Stop: gang.Stop, Shape: room.NewShape(gang.Job, gang.Roles),
	}
}

// Waits reports whether the ask may not be placed at this time, however much is free.
func (a Ask) Waits(now int64) bool { return a.Held || a.Stop || a.NotBefore > now }

// Before orders asks: higher priority first, then who was submitted first.
func Before(a, b Ask) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Submitted, b.Submitted), cmp.Compare(a.ID, b.ID))
}

// Shapes gives asks that need the same one shape, so that many waiting gangs take little memory.
type Shapes struct{ shapes room.Shapes }

// Ask reads a gang; Release gives its shape back.
func (s *Shapes) Ask(gang cluster.Gang) Ask {
	ask := NewAsk(gang)
	ask.Shape = s.shapes.Get(ask.Shape)
	return ask
}

// Release says that an ask that came from Ask is no longer used.
func (s *Shapes) Release(ask Ask) { s.shapes.Release(ask.Shape) }
