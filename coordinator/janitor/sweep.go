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
	Jobs     []Ended // at hand, that nobody else's job made, the first that ended first
	Archived []Ended // archived jobs, some of them
	// Refs says by job what needs something that it left, and Reads what reads its rows, in words.
	Refs, Reads map[string]string
	Tokens      []cluster.Token
}

// Kind is a sort of thing that goes.
type Kind string

// What goes.
const (
	GoneJob      Kind = "job"      // with all that it left
	GoneArchived Kind = "archived" // an archived job, likewise
	GoneRecord   Kind = "record"   // of a job, to the archive
	GoneToken    Kind = "token"
	GoneObjects  Kind = "objects" // of no job and no version
	GoneUpload   Kind = "upload"  // what a command sent along
	GoneParts    Kind = "parts"   // of an upload that was not completed
	// GoneCheckpoints are those of a task that later attempts have gone beyond.
	GoneCheckpoints Kind = "checkpoints"
)

// Kinds are all of them.
func Kinds() []Kind {
	return []Kind{GoneJob, GoneArchived, GoneRecord, GoneToken, GoneObjects, GoneUpload, GoneParts, GoneCheckpoints}
}

// Gone is something whose time is over.
type Gone struct {
	Kind Kind
	ID   string
	Why  string
	// What it takes in the object store, or took; of a job that is yet to go, in its own folder.
	Objects, Bytes int64
}

// Result is what a sweep found.
type Result struct {
	Gone []Gone
	Kept []Gone // their time is over, too, but something needs them
	More bool   // there is more than a round takes
}

// settle is how long a job is at hand in any case: whoever waited for it looks at it once more, and agents bring its logs to the store.
const settle = time.Hour

// Sweep says whose time is over, at most so many. It never has a job deleted that something refers to, nor one archived whose
// rows something reads.
func Sweep(v View, settings cluster.Settings, now int64, most int) Result {
	s := sweep{View: v, keep: settings.Retention, now: now, most: most}
	_ = s.jobs() && s.archived() && s.tokens() // each says whether there is room for more
	return s.Result
}

// jobs are those at hand.
func (s *sweep) jobs() bool {
	excess := int64(0)
	if s.keep.JobsMost > 0 {
		excess = int64(len(s.Jobs)) - s.keep.JobsMost
	}
	for i, job := range s.Jobs {
		age := time.Duration(s.now - job.At)
		over, why := s.over(age)
		if over && s.Refs[job.Name] == "" {
			if !s.add(Gone{Kind: GoneJob, ID: job.Name, Why: why}) {
				return false
			}
			continue
		}
		old := s.keep.Jobs > 0 && age > s.keep.Jobs
		surplus := int64(i) < excess && age > settle
		switch {
		case over:
			s.stay(Gone{Kind: GoneJob, ID: job.Name, Why: s.Refs[job.Name]})
		case !old && !surplus:
			return true // those behind it ended later
		}
		if !old && !surplus {
			continue
		}
		if old {
			why = fmt.Sprintf("it ended %s ago, and ended jobs are at hand for %s (retention.jobs)", spoken(age), spoken(s.keep.Jobs))
		} else {
			why = fmt.Sprintf("%d ended jobs are at hand, and at most %d are to be (retention.jobs_most)", len(s.Jobs), s.keep.JobsMost)
		}
		if reads := s.Reads[job.Name]; reads != "" {
			s.stay(Gone{Kind: GoneRecord, ID: job.Name, Why: reads})
			continue
		}
		if !s.add(Gone{Kind: GoneRecord, ID: job.Name, Why: why}) {
			return false
		}
	}
	return true
}

// over says whether what a job left is kept for no longer, and why.
func (s *sweep) over(age time.Duration) (bool, string) {
	if s.keep.Outputs == 0 || age <= s.keep.Outputs {
		return false, ""
	}
	return true, fmt.Sprintf("it ended %s ago, and what ended jobs left is kept for %s (retention.outputs)", spoken(age), spoken(s.keep.Outputs))
}

func (s *sweep) archived() bool {
	for _, job := range s.Archived {
		over, why := s.over(time.Duration(s.now - job.At))
		switch {
		case !over:
		case s.Refs[job.Name] != "":
			s.stay(Gone{Kind: GoneArchived, ID: job.Name, Why: s.Refs[job.Name]})
		case !s.add(Gone{Kind: GoneArchived, ID: job.Name, Why: why}):
			return false
		}
	}
	return true
}

func (s *sweep) tokens() bool {
	for _, token := range s.Tokens {
		age := time.Duration(s.now - token.Expires)
		// The token with which a coordinator joined vouches for its key for as long as it is one: see coordinator/quorum.
		vouches := token.Role == cluster.RoleCoordinator && token.BoundKey != "" && !token.Revoked
		if token.Expires == 0 || age <= s.keep.Tokens || vouches {
			continue
		}
		if !s.add(Gone{Kind: GoneToken, ID: token.ID, Why: fmt.Sprintf("it expired %s ago, and expired tokens are kept for %s (retention.tokens)", spoken(age), spoken(s.keep.Tokens))}) {
			return false
		}
	}
	return true
}

// sweep gathers a result.
type sweep struct {
	View
	Result
	keep cluster.Retention
	now  int64
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

// stay notes some of those that stay: there may be many.
func (s *sweep) stay(kept Gone) {
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
