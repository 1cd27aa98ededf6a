package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// Needs is what a gang needs of the nodes: one Size, or of an elastic gang one for each step between its
// least and its most. Gangs that need the same share their Needs where a pool gave them: what does not fit for
// one does not fit for all.
type Needs struct {
	key   string
	job   string
	roles []cluster.Role // without their programs
	steps int            // the size of the most; 0 if the gang is not elastic
	sizes []*Size        // by step, made when they are asked for
	users int            // asks that share it

	away     []cluster.Affinity // by which it keeps others away from all of it
	required bool               // it must be near others, or away from them

	without  []string          // models that are left out
	variants map[string]*Needs // of it, by what they leave out
}

// Size is a gang with so many tasks of each role.
type Size struct {
	Shape  *room.Shape
	Amount cluster.Amount
	Counts []int32 // by role; nil of a gang that is not elastic
}

// For is its shape for a guest whom others keep away; nil is nobody whom they do.
func (s *Size) For(g *room.Guest) *room.Shape {
	if g == nil {
		return s.Shape
	}
	return s.Shape.For(g)
}

// guest is who asks, as those see it that keep it away; nil if nobody does.
func (c *Cluster) guest(a *Ask) *room.Guest {
	if !c.Room.Shields() { // nearly always, and this is asked for each that waits
		return nil
	}
	return c.shunned(room.Guest{ID: a.ID, Job: a.Job, Labels: a.Labels})
}

// guestOf is the same of a gang that runs.
func (c *Cluster) guestOf(run *runner) *room.Guest {
	if !c.Room.Shields() {
		return nil
	}
	return c.shunned(room.Guest{ID: run.ID, Job: run.Job, Labels: run.Labels})
}

func (c *Cluster) shunned(g room.Guest) *room.Guest {
	if !c.Room.Shuns(&g) {
		return nil
	}
	return &g
}

// NewNeeds reads what a job's gang needs.
func NewNeeds(job string, roles []cluster.Role) *Needs {
	n := &Needs{job: job, roles: slices.Clone(roles)}
	for i := range n.roles {
		role := &n.roles[i]
		role.Program = cluster.Program{Inputs: role.Program.Inputs} // what nodes may have in their caches
		n.required = n.required || slices.ContainsFunc(role.Affinities, func(a cluster.Affinity) bool { return a.Weight == 0 })
		n.steps = max(n.steps, int(role.Count-role.Least()))
	}
	n.away = room.Away(n.roles)
	n.sizes = make([]*Size, n.steps+1)
	n.key = n.Most().Shape.Key
	if n.steps > 0 {
		var key strings.Builder
		key.WriteString(n.key)
		for _, role := range n.roles {
			fmt.Fprintf(&key, "%d;", role.Least())
		}
		n.key = key.String()
	}
	return n
}

// Elastic reports whether the gang can have more than one size.
func (n *Needs) Elastic() bool { return n.steps > 0 }

// Least is the smallest that the gang may be.
func (n *Needs) Least() *Size { return n.at(0) }

// Most is the largest that it may be.
func (n *Needs) Most() *Size { return n.at(n.steps) }

// at is the size so many steps above the least. All elastic roles grow together, by equal parts of what
// they may.
func (n *Needs) at(step int) *Size {
	if size := n.sizes[step]; size != nil {
		return size
	}
	size := &Size{}
	roles := slices.Clone(n.roles)
	for i := range roles {
		role := &roles[i]
		if n.steps > 0 {
			least := role.Least()
			role.Count = least + int32(int64(role.Count-least)*int64(step)/int64(n.steps))
			size.Counts = append(size.Counts, role.Count)
		}
		size.Amount = size.Amount.Plus(role.Ask.Amount(int64(role.Count)), 1)
	}
	size.Shape = room.NewShape(n.job, roles)
	if len(n.without) > 0 {
		size.Shape = size.Shape.Without(n.without)
	}
	n.sizes[step] = size
	return size
}

// sparing is the same without some models of GPU. All who share the needs share what it gives.
func (n *Needs) sparing(models []string) *Needs {
	slices.Sort(models)
	key := strings.Join(models, ",")
	if other := n.variants[key]; other != nil {
		return other
	}
	other := &Needs{away: n.away, required: n.required, key: n.key, job: n.job, roles: n.roles, steps: n.steps, sizes: make([]*Size, len(n.sizes)), without: models}
	other.Least() // so that who only reads it changes nothing
	if n.variants == nil {
		n.variants = map[string]*Needs{}
	}
	n.variants[key] = other
	return other
}

// stepOf is the largest step with no more than these tasks of any role.
func (n *Needs) stepOf(counts []int32) int {
	step := n.steps
	for step > 0 && len(counts) == len(n.roles) {
		size, fits := n.at(step), true
		for i, count := range counts {
			fits = fits && size.Counts[i] <= count
		}
		if fits {
			break
		}
		step--
	}
	return step
}

// pool gives gangs that need the same one Needs, for as long as somebody uses it.
type pool struct{ known map[string]*Needs }

func (p *pool) get(n *Needs) *Needs {
	shared, known := p.known[n.key]
	if !known {
		shared = n
		p.known[n.key] = shared
	}
	shared.users++
	return shared
}

func (p *pool) release(n *Needs) {
	if n.users--; n.users == 0 {
		delete(p.known, n.key)
	}
}
