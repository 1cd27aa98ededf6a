package janitor

import (
	"fmt"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// Ended is a job that has ended.
type Ended struct {
	Name string
	At   int64
}

// View is what a sweep is decided from.
type View struct {
	Jobs   []Ended           // that nobody else's job made, the first that ended first
	Refs   map[string]string // by job: what still needs it, in words
	Tokens []cluster.Token
}

// Kind is a sort of thing that goes.
type Kind string

// What goes.
const (
	GoneJob     Kind = "job"
	GoneToken   Kind = "token"
	GoneObjects Kind = "objects"
)

// Gone is something whose time is over.
type Gone struct {
	Kind Kind
	ID   string
	Why  string
}

// Result is what a sweep found.
type Result struct {
	Gone []Gone
	Kept []Gone // their time is over, too, but something needs them
	More bool   // there is more than a round takes
}

// settle is how long a job stays in any case: whoever waited for it looks at it once more.
const settle = 10 * time.Minute

// Sweep says whose time is over, at most so many. It never names a job that something refers to.
func Sweep(v View, settings cluster.Settings, now int64, most int) Result {
	s := sweep{most: most}
	keep := settings.Retention
	excess := int64(0)
	if keep.JobsMost > 0 {
		excess = int64(len(v.Jobs)) - keep.JobsMost
	}
	for i, job := range v.Jobs {
		age := time.Duration(now - job.At)
		old := keep.Jobs > 0 && age > keep.Jobs
		surplus := int64(i) < excess && age > settle
		if !old && !surplus {
			break // those behind it ended later
		}
		why := fmt.Sprintf("it ended %s ago, and ended jobs are kept for %s (retention.jobs)", spoken(age), spoken(keep.Jobs))
		if !old {
			why = fmt.Sprintf("%d ended jobs are kept, and at most %d are to be (retention.jobs_most)", len(v.Jobs), keep.JobsMost)
		}
		if needed := v.Refs[job.Name]; needed != "" {
			s.keep(Gone{GoneJob, job.Name, needed})
			continue
		}
		if !s.add(Gone{GoneJob, job.Name, why}) {
			return s.Result
		}
	}
	for _, token := range v.Tokens {
		age := time.Duration(now - token.Expires)
		// The token with which a coordinator joined vouches for its key for as long as it is one: see coordinator/quorum.
		vouches := token.Role == cluster.RoleCoordinator && token.BoundKey != "" && !token.Revoked
		if token.Expires == 0 || age <= keep.Tokens || vouches {
			continue
		}
		if !s.add(Gone{GoneToken, token.ID, fmt.Sprintf("it expired %s ago, and expired tokens are kept for %s (retention.tokens)", spoken(age), spoken(keep.Tokens))}) {
			return s.Result
		}
	}
	return s.Result
}

// sweep gathers a result.
type sweep struct {
	Result
	most int
}

func (s *sweep) add(gone Gone) bool {
	if len(s.Gone) == s.most {
		s.More = true
		return false
	}
	s.Gone = append(s.Gone, gone)
	return true
}

// keep notes some of those that stay: there may be many.
func (s *sweep) keep(kept Gone) {
	if len(s.Kept) < s.most {
		s.Kept = append(s.Kept, kept)
	}
}

func spoken(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
	return d.Round(time.Second).String()
}
