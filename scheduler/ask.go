package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// Ask is a gang as the scheduler sees it: who comes first, and what is needed.
type Ask struct {
	ID        string
	Attempt   int32
	Revision  uint64
	Priority  int32
	Submitted int64
	NotBefore int64
	Held      bool
	Stop      bool
	Shape     *Shape
}

// Shape is what a gang needs. Gangs that need the same share a shape's Key, and where a
// Shapes made them the shape itself: what does not fit for one does not fit for all.
type Shape struct {
	Key   string
	roles []need // in the order of the gang's roles
	size  int

	order, reverse []int // of roles: the hardest to place first, and last
}

// need is one role.
type need struct {
	name   string
	count  int
	first  int // place of its first task among the gang's
	ask    cluster.Ask
	labels []label // sorted
	spread string  // names the tasks that it keeps away from; "" if it keeps away from none
}

type label struct{ key, value string }

// NewAsk reads a gang.
func NewAsk(gang cluster.Gang) Ask {
	return Ask{
		ID: gang.ID(), Attempt: gang.Attempt, Revision: gang.Revision, Priority: gang.Priority, Submitted: gang.Submitted,
		NotBefore: gang.NotBefore, Held: gang.Held, Stop: gang.Stop, Shape: newShape(gang.Job, gang.Roles),
	}
}

// Waits reports whether the ask may not be placed at this time, however much is free.
func (a Ask) Waits(now int64) bool { return a.Held || a.Stop || a.NotBefore > now }

// Before orders asks: higher priority first, then who was submitted first.
func Before(a, b Ask) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Submitted, b.Submitted), cmp.Compare(a.ID, b.ID))
}

func newShape(job string, roles []cluster.Role) *Shape {
	shape := &Shape{}
	var key strings.Builder
	for i, role := range roles {
		n := need{name: role.Name, count: int(role.Count), first: shape.size, ask: role.Ask, spread: spreadOf(job, role.Spread)}
		for k, v := range role.Labels {
			n.labels = append(n.labels, label{k, v})
		}
		slices.SortFunc(n.labels, func(a, b label) int { return cmp.Compare(a.key, b.key) })
		fmt.Fprintf(&key, "%s %d %d %d %d %q %d %q;", role.Name, role.Count, role.Ask.MilliCPU, role.Ask.Memory, role.Ask.GPUs, role.Ask.GPUModel, role.Ask.Ports, n.labels)
		if n.spread != "" {
			fmt.Fprintf(&key, "%q;", n.spread)
		}
		shape.roles = append(shape.roles, n)
		shape.order = append(shape.order, i)
		shape.size += n.count
	}
	shape.Key = key.String()
	// GPUs are the scarcest, then memory, then cores. The order is part of the policy.
	slices.SortStableFunc(shape.order, func(i, j int) int {
		a, b := shape.roles[i].ask, shape.roles[j].ask
		return cmp.Or(cmp.Compare(b.GPUs, a.GPUs), cmp.Compare(b.Memory, a.Memory), cmp.Compare(b.MilliCPU, a.MilliCPU))
	})
	shape.reverse = slices.Clone(shape.order)
	slices.Reverse(shape.reverse)
	return shape
}

// spreadOf names the tasks of a job that are spread together.
func spreadOf(job, spread string) string {
	if spread == "" {
		return ""
	}
	return job + "/" + spread
}

// Shapes gives gangs that need the same one shape, so that many waiting gangs take
// little memory. It keeps a shape for as long as somebody uses it.
type Shapes struct{ known map[string]*sharedShape }

type sharedShape struct {
	shape *Shape
	users int
}

// Ask reads a gang; Release gives its shape back.
func (s *Shapes) Ask(gang cluster.Gang) Ask {
	ask := NewAsk(gang)
	if s.known == nil {
		s.known = map[string]*sharedShape{}
	}
	shared, known := s.known[ask.Shape.Key]
	if !known {
		shared = &sharedShape{shape: ask.Shape}
		s.known[ask.Shape.Key] = shared
	}
	shared.users++
	ask.Shape = shared.shape
	return ask
}

// Release says that an ask that came from Ask is no longer used.
func (s *Shapes) Release(ask Ask) {
	shared, known := s.known[ask.Shape.Key]
	if !known {
		return
	}
	if shared.users--; shared.users == 0 {
		delete(s.known, ask.Shape.Key)
	}
}
