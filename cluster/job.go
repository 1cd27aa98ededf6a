package cluster

import (
	"slices"
	"time"
)

// Kind is a sort of job. What its spec means is known to workload/KIND alone.
type Kind string

// The kinds of job.
const (
	KindTraining   Kind = "training"
	KindTuning     Kind = "tuning"
	KindProcessing Kind = "processing"
	KindTransform  Kind = "transform"
	KindEndpoint   Kind = "endpoint"
)

// JobState is where a job stands in its life.
//
//	queued ──▶ running ──▶ publishing ──▶ succeeded
//	  ▲  │       │ │ │         │ │
//	  │  │       │ │ └──┐      │ └──────▶ failed ◀── queued, running
//	  └──┼─retry─┘ │    │      │
//	     └─────────┴────┴──────┴──▶ stopping ──▶ cancelled
//	                                    └──────▶ failed   (ran longer than it may)
type JobState string

// The states of a job.
const (
	JobQueued     JobState = "queued"     // waits for room, for its backoff, or to be released
	JobRunning    JobState = "running"    // its gang is placed
	JobPublishing JobState = "publishing" // its tasks have succeeded, its outputs are being committed
	JobStopping   JobState = "stopping"   // its tasks were told to end
	JobSucceeded  JobState = "succeeded"
	JobFailed     JobState = "failed"
	JobCancelled  JobState = "cancelled"
)

var jobEdges = edges[JobState]{
	JobQueued:     {JobRunning, JobStopping, JobFailed, JobCancelled},
	JobRunning:    {JobQueued, JobPublishing, JobStopping, JobFailed, JobCancelled},
	JobPublishing: {JobSucceeded, JobStopping, JobFailed, JobCancelled},
	JobStopping:   {JobCancelled, JobFailed},
	JobSucceeded:  {},
	JobFailed:     {},
	JobCancelled:  {},
}

// CanBecome reports whether a job may go from one state to the other.
func (s JobState) CanBecome(next JobState) bool { return jobEdges.has(s, next) }

// Ended reports whether the job will never change again.
func (s JobState) Ended() bool {
	next, known := jobEdges[s]
	return known && len(next) == 0
}

// Retry says how often a job's gang is started anew, and how long to wait before.
type Retry struct {
	Limit   int32         // restarts after a task failed; lost nodes do not count
	Backoff time.Duration // before the first restart; doubles each time, up to 10 minutes
	// Only and Never choose by the exit code of the task that failed first: with Only no
	// other is tried again, and what is in Never is not. A task that failed without an exit
	// code, since it could not be started or its outputs not be saved, is tried again.
	Only, Never []int32
}

// MaxExitCodes are how many exit codes a retry policy may name in each list.
const MaxExitCodes = 64

// Again reports whether a task's exit code is one that is tried again.
func (r Retry) Again(code int32) bool {
	return code == 0 || !slices.Contains(r.Never, code) && (len(r.Only) == 0 || slices.Contains(r.Only, code))
}

func (r Retry) validate(p *Problems) {
	checkRange(p, "retries", int64(r.Limit), 0, MaxRetries)
	checkDuration(p, "backoff", r.Backoff, 0, 10*time.Minute)
	for field, codes := range map[string][]int32{"retry_only": r.Only, "retry_never": r.Never} {
		if len(codes) > MaxExitCodes {
			p.Add(field, "%d exit codes: at most %d", len(codes), MaxExitCodes)
		}
		for _, code := range codes {
			if code < 1 || code > 255 {
				p.Add(field, "%d is not the exit code of a failure: from 1 to 255", code)
			}
		}
	}
}

// Job is what a user submits. Its name is its identity.
type Job struct {
	Name      string
	Kind      Kind
	Owner     string
	Queue     string
	Priority  int32 // higher goes first within a queue
	Labels    map[string]string
	Spec      []byte // JSON, validated by workload/KIND when submitted, never changed after
	RequestID string // chosen by the client: the same request twice is one job
	Parent    string // the job that made it, and that it ends with; "" for one that a user submitted

	MaxRuntime time.Duration // from placement to end; 0 is no limit
	Retry      Retry
	Held       bool // waits until its owner releases it
	// NonPreemptible keeps it from making room for others.
	NonPreemptible bool
	Cancel         bool // its owner wants it to end
	// Register is the model that what it publishes as "model" becomes a version of; "" is none.
	Register string
	// Models are what the references to models among its inputs meant when it was submitted.
	Models []ModelPin

	State     JobState
	Reason    string // why it waits, failed or was cancelled, in words
	Attempt   int32  // of its current gang, from 1
	Failures  int32  // attempts that failed by their own fault
	Preempted int32  // how often it had to make room for another
	Submitted int64
	Started   int64 // when it first ran
	Ended     int64
	// Ran is how long its attempts had their room together, those that have ended.
	Ran       time.Duration
	Delivered bool // its published outputs were copied to where the user asked

	Revision uint64
}

// DefaultQueue is the queue of jobs that name none.
const DefaultQueue = "default"

// Limits on one job.
const (
	MaxSpec     = 1 << 20 // bytes
	MaxPriority = 1000
	MaxRetries  = 1000
)

// Validate reports every mistake in a job but those in its spec.
func (j Job) Validate() Problems {
	var p Problems
	CheckName(&p, "name", j.Name)
	CheckName(&p, "kind", string(j.Kind))
	CheckName(&p, "queue", j.Queue)
	if j.Parent != "" {
		CheckName(&p, "parent", j.Parent)
	}
	if j.Kind == KindTuning && len(j.Name) > MaxSweepName {
		p.Add("name", "%q has %d bytes: a sweep's name has at most %d, since its trials' names begin with it", j.Name, len(j.Name), MaxSweepName)
	}
	if j.Kind == KindEndpoint {
		j.checkEndless(&p)
	}
	if j.Owner == "" || len(j.Owner) > 128 {
		p.Add("owner", "%q: takes 1 to 128 bytes", Clip(j.Owner))
	}
	if len(j.RequestID) > 128 {
		p.Add("request_id", "%d bytes: at most 128", len(j.RequestID))
	}
	if len(j.Spec) > MaxSpec {
		p.Add("spec", "%d bytes: at most %d", len(j.Spec), MaxSpec)
	}
	checkRange(&p, "priority", int64(j.Priority), -MaxPriority, MaxPriority)
	if j.Register != "" {
		CheckName(&p, "register", j.Register)
	}
	p.Under("models", checkPins(j.Models))
	j.Retry.validate(&p)
	checkDuration(&p, "max_runtime", j.MaxRuntime, 0, 10*365*24*time.Hour)
	checkLabels(&p, "labels", j.Labels)
	if _, known := jobEdges[j.State]; !known {
		p.Add("state", "%q is unknown", Clip(string(j.State)))
	}
	return p
}

// checkEndless reports what is for a job that ends by itself.
func (j Job) checkEndless(p *Problems) {
	for field, set := range map[string]bool{"max_runtime": j.MaxRuntime != 0, "retries": j.Retry.Limit != 0, "register": j.Register != ""} {
		if set {
			p.Add(field, "is for a job that ends: an endpoint goes on until it is cancelled, and its replicas always start anew")
		}
	}
}

func checkDuration(p *Problems, field string, value, least, most time.Duration) {
	if value < least || value > most {
		p.Add(field, "%s is out of range: from %s to %s", value, least, most)
	}
}
