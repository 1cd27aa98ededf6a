package cluster

import (
	"fmt"
	"slices"
	"time"
)

// Gang is a set of tasks that start together or not at all. A reconciler writes it;
// the planner finds room for it. Each restart is the next attempt, and what an older
// attempt says no longer counts.
type Gang struct {
	Job      string
	Name     string // "main" where a job has one gang
	Queue    string
	Owner    string
	Priority int32
	Attempt  int32 // from 1
	Roles    []Role

	Submitted  int64         // of the job: earlier goes first at equal priority
	NotBefore  int64         // backoff: not placed before this instant
	MaxRuntime time.Duration // of one attempt; 0 is no limit
	Held       bool          // not placed until released
	Stop       bool          // its tasks are to end
	StopReason string
	Moves      bool // with Stop: the next attempt follows, elsewhere, and costs no retry
	// Handover is for what must not pause: whoever would have it move sets Moves and not Stop, and the
	// reconciler stops it when another has taken its place.
	Handover bool
	Failures int32 // attempts in a row that failed by their own fault, where its job does not count them

	// Granted are how many tasks of each role the current attempt has, if a role is elastic: set when
	// it is placed; nil is all of each, or none yet.
	Granted []int32
	// For is, with Moves, the gang that gets its room: its own where it is resized; "" if nobody's.
	For string
	// Evicted is how often it had to make room for another, Resized when it was resized lately:
	// no more than MaxResizes within ResizeWindow.
	Evicted int32
	Resized []int64
	// NonPreemptible keeps it from being evicted.
	NonPreemptible bool
	// Ran is how long its earlier attempts had their room together.
	Ran time.Duration

	Labels   map[string]string // of its job: those that affinities of other jobs name
	Revision uint64
}

// Role is a number of like tasks of a gang.
type Role struct {
	Name    string // worker, server, ...
	Count   int32  // of an elastic role the most
	Min     int32  // of an elastic role the least; 0: it has Count and no fewer
	Ask     Ask
	Program Program
	Labels  map[string]string // a node must have all of these
	// Spread asks for nodes that have fewest tasks of the same job and Spread, before anything else; ""
	// asks for nothing.
	Spread string
	// Over is what is one place for Spread: node (also if it is ""), rack or zone. Pack turns it
	// around: to where most of these tasks are.
	Over Level
	Pack bool

	Constraints []Constraint // beside Labels
	Affinities  []Affinity
	Tolerations []Toleration // of taints
	Topology    Topology
}

// Limits on one gang.
const (
	MaxTasks = 4096 // of one gang
	MaxRoles = 16
)

const (
	// MaxResizes within ResizeWindow: each costs what an attempt takes to start.
	MaxResizes   = 6
	ResizeWindow = time.Hour
	// DefaultMinRuntime is how long what was placed is left alone, if its queue does not say.
	DefaultMinRuntime = time.Minute
)

// ID is "job/gang".
func (g Gang) ID() string { return g.Job + "/" + g.Name }

// TaskID is the identity of one task of the gang's current attempt:
// "job/gang/role-index.attempt".
func (g Gang) TaskID(role string, index int32) string {
	return fmt.Sprintf("%s/%s/%s-%d.%d", g.Job, g.Name, role, index, g.Attempt)
}

// Tasks is how many tasks of a role the current attempt has, or while it waits may have.
func (g Gang) Tasks(role int) int32 {
	if role < len(g.Granted) {
		return g.Granted[role]
	}
	return g.Roles[role].Count
}

// Of is the gang as a placement makes it: with the numbers of tasks that it is granted.
func (g Gang) Of(p Placement) Gang {
	if g.Elastic() {
		g.Granted = p.Counts
	}
	return g
}

// Size is how many tasks start together: of an elastic gang that waits, at most.
func (g Gang) Size() int {
	size := 0
	for i := range g.Roles {
		size += int(g.Tasks(i))
	}
	return size
}

// AtLeast is the gang with no more tasks than it needs to start.
func (g Gang) AtLeast() Gang {
	g.Roles = slices.Clone(g.Roles)
	for i := range g.Roles {
		g.Roles[i].Count = g.Roles[i].Least()
	}
	return g
}

// Elastic reports whether the gang can run with fewer tasks than it asks for.
func (g Gang) Elastic() bool { return slices.ContainsFunc(g.Roles, Role.Elastic) }

// CheckCounts says what is wrong with numbers of tasks, one for each role, or nothing.
func (g Gang) CheckCounts(counts []int32) string {
	if len(counts) != len(g.Roles) {
		return fmt.Sprintf("counts for %d roles, it has %d", len(counts), len(g.Roles))
	}
	for i, role := range g.Roles {
		if counts[i] < role.Least() || counts[i] > role.Count {
			return fmt.Sprintf("%d of role %s: from %d to %d", counts[i], role.Name, role.Least(), role.Count)
		}
	}
	return ""
}

// Elastic reports whether the role can have fewer tasks than Count.
func (r Role) Elastic() bool { return r.Min > 0 && r.Min < r.Count }

// Least is the fewest tasks that the role starts with.
func (r Role) Least() int32 {
	if r.Elastic() {
		return r.Min
	}
	return r.Count
}

// Role returns the named role.
func (g Gang) Role(name string) (Role, bool) {
	for _, role := range g.Roles {
		if role.Name == name {
			return role, true
		}
	}
	return Role{}, false
}

// Validate reports every mistake in the gang.
func (g Gang) Validate() Problems {
	var p Problems
	CheckName(&p, "job", g.Job)
	CheckName(&p, "name", g.Name)
	CheckName(&p, "queue", g.Queue)
	checkRange(&p, "attempt", int64(g.Attempt), 1, 1<<30)
	if len(g.Roles) == 0 || len(g.Roles) > MaxRoles {
		p.Add("roles", "%d roles: from 1 to %d", len(g.Roles), MaxRoles)
	}
	seen := map[string]bool{}
	services := 0
	total := int64(0)
	for i, role := range g.Roles {
		field := fmt.Sprintf("roles[%d]", i)
		if seen[role.Name] {
			p.Add(field+".name", "%q is there twice", Clip(role.Name))
		}
		seen[role.Name] = true
		if role.Program.Service {
			services++
		}
		total += int64(role.Count)
		p.Under(field, role.Validate())
	}
	if services > 0 && services == len(g.Roles) {
		p.Add("roles", "all are services: nothing would ever be done")
	}
	if total > MaxTasks {
		p.Add("roles", "%d tasks: a gang has at most %d", total, MaxTasks)
	}
	checkRange(&p, "failures", int64(g.Failures), 0, 1<<30)
	checkRange(&p, "evicted", int64(g.Evicted), 0, 1<<30)
	if len(g.Granted) > 0 {
		if reason := g.CheckCounts(g.Granted); reason != "" {
			p.Add("granted", "%s", reason)
		}
	}
	if g.For != "" && (!g.Stop || !g.Moves) {
		p.Add("for", "%q of a gang that does not move: it is for one that makes room", Clip(g.For))
	}
	if len(g.Resized) > MaxResizes {
		p.Add("resized", "%d instants: at most %d", len(g.Resized), MaxResizes)
	}
	checkDuration(&p, "max_runtime", g.MaxRuntime, 0, 10*365*24*time.Hour)
	p.Under("", g.validateTopology())
	return p
}

// validateTopology: what belongs together does so in one way.
func (g Gang) validateTopology() Problems {
	var p Problems
	var said Topology
	for i, role := range g.Roles {
		switch {
		case role.Topology.Level == "":
		case said.Level == "":
			said = role.Topology
		case said != role.Topology:
			p.Add(fmt.Sprintf("roles[%d].topology", i), "is not that of the gang's other roles: roles have the same or none")
		}
	}
	return p
}

// Validate reports every mistake in the role.
func (r Role) Validate() Problems {
	var p Problems
	CheckName(&p, "name", r.Name)
	checkRange(&p, "count", int64(r.Count), 1, MaxTasks)
	if r.Min < 0 || r.Min > max(r.Count, 0) {
		p.Add("min", "%d: from 1 to count, which is %d, or 0 for all", r.Min, r.Count)
	}
	if r.Elastic() && r.Program.Service {
		p.Add("min", "is not for a service: say how many there are")
	}
	p.Under("ask", r.Ask.Validate())
	p.Under("program", r.Program.Validate())
	checkLabels(&p, "labels", r.Labels)
	if len(r.Spread) > 255 {
		p.Add("spread", "%d bytes: at most 255", len(r.Spread))
	}
	p.Under("", r.validatePlace())
	return p
}
