package cluster

import (
	"fmt"
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

	Revision uint64
}

// Role is a number of like tasks of a gang.
type Role struct {
	Name    string // worker, server, ...
	Count   int32
	Ask     Ask
	Program Program
	Labels  map[string]string // a node must have all of these
	// Spread asks for nodes that have fewest tasks of the same job and Spread, before anything else; ""
	// asks for nothing.
	Spread string
}

// Limits on one gang.
const (
	MaxTasks = 4096 // of one gang
	MaxRoles = 16
)

// ID is "job/gang".
func (g Gang) ID() string { return g.Job + "/" + g.Name }

// TaskID is the identity of one task of the gang's current attempt:
// "job/gang/role-index.attempt".
func (g Gang) TaskID(role string, index int32) string {
	return fmt.Sprintf("%s/%s/%s-%d.%d", g.Job, g.Name, role, index, g.Attempt)
}

// Size is how many tasks start together.
func (g Gang) Size() int {
	size := 0
	for _, role := range g.Roles {
		size += int(role.Count)
	}
	return size
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
	checkDuration(&p, "max_runtime", g.MaxRuntime, 0, 10*365*24*time.Hour)
	return p
}

// Validate reports every mistake in the role.
func (r Role) Validate() Problems {
	var p Problems
	CheckName(&p, "name", r.Name)
	checkRange(&p, "count", int64(r.Count), 1, MaxTasks)
	p.Under("ask", r.Ask.Validate())
	p.Under("program", r.Program.Validate())
	checkLabels(&p, "labels", r.Labels)
	if len(r.Spread) > 255 {
		p.Add("spread", "%d bytes: at most 255", len(r.Spread))
	}
	return p
}
