package cluster

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// TrialState is where a trial stands in its life.
//
//	waiting ──▶ running ──▶ complete    its values are known
//	   ▲  │      │ ▲  │ ├─▶ stopped     it was not worth going on with
//	   ├──┼──────┘ │  │ ├─▶ failed      it has no values, and probably never would
//	   │  │        │  ▼ ├─▶ infeasible  its configuration cannot be run
//	   │  └────────┼─paused ─▶ cancelled   ended for reasons that say nothing about it
//	   └───────────┴───┘
type TrialState string

// The states of a trial.
const (
	TrialWaiting    TrialState = "waiting" // for room, or for somebody to run it (again)
	TrialRunning    TrialState = "running"
	TrialPaused     TrialState = "paused" // at a rung: it may be promoted and go on
	TrialComplete   TrialState = "complete"
	TrialStopped    TrialState = "stopped"
	TrialFailed     TrialState = "failed"
	TrialInfeasible TrialState = "infeasible"
	TrialCancelled  TrialState = "cancelled"
)

var trialEdges = edges[TrialState]{
	TrialWaiting:    {TrialRunning, TrialPaused, TrialComplete, TrialStopped, TrialFailed, TrialInfeasible, TrialCancelled},
	TrialRunning:    {TrialWaiting, TrialPaused, TrialComplete, TrialStopped, TrialFailed, TrialInfeasible, TrialCancelled},
	TrialPaused:     {TrialWaiting, TrialRunning, TrialComplete, TrialStopped, TrialFailed, TrialCancelled},
	TrialComplete:   {},
	TrialStopped:    {},
	TrialFailed:     {},
	TrialInfeasible: {},
	TrialCancelled:  {},
}

// CanBecome reports whether a trial may go from one state to the other.
func (s TrialState) CanBecome(next TrialState) bool { return trialEdges.has(s, next) }

// Ended reports whether the trial will never change again.
func (s TrialState) Ended() bool {
	next, known := trialEdges[s]
	return known && len(next) == 0
}

// Trial is one configuration that a sweep tries, and what is known of it. One that has
// ended is a compact row: its job is gone, what people need of it stands here.
type Trial struct {
	Sweep  string // the tuning job
	Number int64  // from 0, in the order in which they were made
	// Config is a number for each parameter of the sweep's space, in the space's order:
	// NaN where the parameter is not active.
	Config []float64
	State  TrialState
	Reason string // why it waits, failed or was stopped, in words

	Values []float64    // of the objectives; of complete trials, and what a live one last said
	Limits []float64    // of the metrics that are limited; likewise
	Curve  []CurvePoint // of the first objective, at the steps that count for the search
	Order  uint64       // of its end among all results of the sweep, from 1
	Since  uint64       // how many results the search knew when it proposed the trial

	Started int64
	Ended   int64
	Cost    float64 // of all that ran for it
	By      string  // who added it by hand

	Runs        int32         // jobs that were made for it, or times that it was given to a worker
	Failures    int32         // that were its own fault
	Job         string        // that runs it now, or ran it last
	Worker      string        // that runs it now, or ran it last
	Request     string        // of the worker, for which it was given out
	Lease       int64         // until when the worker has it
	Silence     time.Duration // how long the worker may say nothing
	Model       string        // s3:// address of what it made
	Checkpoints string        // s3:// prefix that its next run goes on from

	Revision uint64
}

// CurvePoint is a value of the first objective on the way.
type CurvePoint struct {
	Step  float64 // of the fidelity: epochs, mostly
	Value float64
	Order uint64 // among all results of the sweep, from 1; 0: the search has not seen it
}

// Sweep is what changes of a tuning job: the job's spec never does.
type Sweep struct {
	Job      string
	Paused   bool   // no new trial begins
	Closed   string // why none ever will, in words; "" while there may be more
	Halt     bool   // what still runs is stopped too
	Parallel int32  // how many trials run at once
	Budget   Budget

	Next   int64  // number of the next trial
	Order  uint64 // results so far
	Counts TrialCounts

	Best       int64     // the best complete trial, if there are BestValues
	BestValues []float64 // of the objectives
	BestLimits []float64

	Started  int64         // when its first trial began
	PausedAt int64         // since when it pauses
	PausedIn time.Duration // how long it had paused before that
	Cost     float64       // of all trials

	Revision uint64
}

// Budget is what a sweep may use. What is 0 has no bound.
type Budget struct {
	Trials int64
	Time   time.Duration // from its first trial's begin, without pauses
	Cost   float64
}

// TrialCounts are how many trials of a sweep are in each state.
type TrialCounts struct {
	Waiting    int64
	Running    int64
	Paused     int64
	Complete   int64
	Stopped    int64
	Failed     int64
	Infeasible int64
	Cancelled  int64
}

// Of is the count of one state, to read or to change; nil if the state is unknown.
func (c *TrialCounts) Of(state TrialState) *int64 {
	switch state {
	case TrialWaiting:
		return &c.Waiting
	case TrialRunning:
		return &c.Running
	case TrialPaused:
		return &c.Paused
	case TrialComplete:
		return &c.Complete
	case TrialStopped:
		return &c.Stopped
	case TrialFailed:
		return &c.Failed
	case TrialInfeasible:
		return &c.Infeasible
	case TrialCancelled:
		return &c.Cancelled
	}
	return nil
}

// Live is how many trials have not ended.
func (c TrialCounts) Live() int64 { return c.Waiting + c.Running + c.Paused }

// Total is how many trials there are.
func (c TrialCounts) Total() int64 {
	return c.Live() + c.Complete + c.Stopped + c.Failed + c.Infeasible + c.Cancelled
}

// Limits on sweeps and their trials.
const (
	MaxSweepName  = 40 // bytes, so that its trials' jobs have names
	MaxTrials     = 999_999_999
	MaxParallel   = 10_000
	MaxCurve      = 1000 // points that are kept of one trial
	MaxParameters = 1000
	MaxWorker     = 128  // bytes of a worker's name
	MaxTrialText  = 1024 // bytes of a reason
)

// TrialID is "sweep/000000012".
func TrialID(sweep string, number int64) string { return fmt.Sprintf("%s/%09d", sweep, number) }

// ID is the trial's key.
func (t Trial) ID() string { return TrialID(t.Sweep, t.Number) }

// Equal reports whether two trials are the same in all fields. NaN equals NaN.
func (t Trial) Equal(o Trial) bool {
	same := t.Sweep == o.Sweep && t.Number == o.Number && t.State == o.State && t.Reason == o.Reason &&
		t.Order == o.Order && t.Started == o.Started && t.Ended == o.Ended && sameNumber(t.Cost, o.Cost) && t.By == o.By
	same = same && t.Runs == o.Runs && t.Failures == o.Failures && t.Job == o.Job &&
		t.Worker == o.Worker && t.Request == o.Request && t.Lease == o.Lease && t.Silence == o.Silence && t.Since == o.Since &&
		t.Model == o.Model && t.Checkpoints == o.Checkpoints && t.Revision == o.Revision
	return same && sameNumbers(t.Config, o.Config) && sameNumbers(t.Values, o.Values) && sameNumbers(t.Limits, o.Limits) &&
		slices.EqualFunc(t.Curve, o.Curve, func(a, b CurvePoint) bool {
			return sameNumber(a.Step, b.Step) && sameNumber(a.Value, b.Value) && a.Order == b.Order
		})
}

func sameNumber(a, b float64) bool { return a == b || a != a && b != b }

func sameNumbers(a, b []float64) bool { return slices.EqualFunc(a, b, sameNumber) }

// Validate reports every mistake in the trial.
func (t Trial) Validate() Problems {
	var p Problems
	CheckName(&p, "sweep", t.Sweep)
	checkRange(&p, "number", t.Number, 0, MaxTrials)
	if len(t.Config) == 0 || len(t.Config) > MaxParameters {
		p.Add("config", "%d numbers: from 1 to %d", len(t.Config), MaxParameters)
	}
	if _, known := trialEdges[t.State]; !known {
		p.Add("state", "%q is unknown", Clip(string(t.State)))
	}
	if len(t.Curve) > MaxCurve {
		p.Add("curve", "%d points: at most %d", len(t.Curve), MaxCurve)
	}
	for field, text := range map[string]string{"worker": t.Worker, "request": t.Request, "by": t.By} {
		if len(text) > MaxWorker {
			p.Add(field, "%d bytes: at most %d", len(text), MaxWorker)
		}
	}
	if len(t.Reason) > MaxTrialText {
		p.Add("reason", "%d bytes: at most %d", len(t.Reason), MaxTrialText)
	}
	if !(t.Cost >= 0) || math.IsInf(t.Cost, 0) {
		p.Add("cost", "%v: give a number from 0", t.Cost)
	}
	switch ended := t.State.Ended(); {
	case ended && t.Order == 0:
		p.Add("order", "is 0, and the trial is %s", t.State)
	case !ended && t.Order != 0:
		p.Add("order", "is %d, and the trial is %s", t.Order, t.State)
	case ended && (t.Lease != 0 || t.Silence != 0 || t.Request != ""):
		p.Add("lease", "a trial that is %s belongs to nobody", t.State)
	}
	return p
}

// Validate reports every mistake in the sweep.
func (s Sweep) Validate() Problems {
	var p Problems
	CheckName(&p, "job", s.Job)
	checkRange(&p, "parallel", int64(s.Parallel), 1, MaxParallel)
	p.Under("budget", s.Budget.Validate())
	checkRange(&p, "next", s.Next, 0, MaxTrials+1)
	if len(s.Closed) > MaxTrialText {
		p.Add("closed", "%d bytes: at most %d", len(s.Closed), MaxTrialText)
	}
	if total := s.Counts.Total(); total != s.Next {
		p.Add("counts", "%d trials in all states, and %d were made", total, s.Next)
	}
	return p
}

// Validate reports every mistake in the budget.
func (b Budget) Validate() Problems {
	var p Problems
	checkRange(&p, "trials", b.Trials, 0, MaxTrials)
	checkDuration(&p, "time", b.Time, 0, 10*365*24*time.Hour)
	if !(b.Cost >= 0) || math.IsInf(b.Cost, 0) {
		p.Add("cost", "%v: give a number from 0", b.Cost)
	}
	return p
}
