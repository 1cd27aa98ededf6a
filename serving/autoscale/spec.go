package autoscale

import (
	"slices"
	"time"

	"github.com/clary-ml/clary/internal/quantity"
)

// Spec says between which bounds a fleet scales and by what.
type Spec struct {
	// Min and Max are the fewest and the most replicas. A Min of 0 lets a fleet that nobody asks have
	// none. Without a Max there are always Min.
	Min int `json:"min,omitempty"`
	Max int `json:"max,omitempty"`
	// Initial is how many replicas a new fleet begins with; by default Min, but at least 1.
	Initial *int `json:"initial,omitempty"`
	// Idle is how long nothing may have been asked before a fleet with a Min of 0 loses its last
	// replica; 0 means 15 minutes.
	Idle quantity.Duration `json:"idle,omitzero"`

	// Policies say how many replicas are right. When they differ, the one that wants most decides, and
	// replicas are only taken away if all of them want fewer. Without one the number stays as it was
	// set, but for Min, Max and Idle.
	Policies []Policy `json:"policies,omitempty"`
	// Schedule changes Min and Max at times of the day, the week or the year.
	Schedule []Schedule `json:"schedule,omitempty"`

	// Window is over how long what is measured is averaged; 0 means a minute.
	Window quantity.Duration `json:"window,omitzero"`
	// Burst looks at a shorter window too, to answer a sudden load within seconds.
	Burst Burst `json:"burst,omitzero"`
	// Tolerance is the share that a measurement may be off its target before anything is done; 0.1 if
	// it is left out.
	Tolerance *float64 `json:"tolerance,omitempty"`
	// ScaleOut and ScaleIn say how quickly replicas are added and taken away.
	ScaleOut Pace `json:"scale_out,omitzero"`
	ScaleIn  Pace `json:"scale_in,omitzero"`
}

// Metric is what a policy looks at: one of those below, or the name of a metric of the user's.
type Metric string

// The metrics that every endpoint has.
const (
	Concurrency Metric = "concurrency" // requests at a time for each replica, those that wait included
	Requests    Metric = "requests"    // requests a second for each replica
	Latency     Metric = "latency"     // a quantile of the time to answer, in seconds
	GPU         Metric = "gpu"         // how busy the replicas' GPUs are, from 0 to 100
	Backlog     Metric = "backlog"     // asynchronous requests that wait, for each replica
)

// Policy wants as many replicas as bring its metric to Target, or as its steps say.
type Policy struct {
	// Metric is concurrency, requests, latency, gpu, backlog, or the name of a metric of yours.
	Metric Metric `json:"metric"`
	// Target is what each replica should have of it: requests at a time, requests a second, seconds,
	// percent, requests that wait.
	Target float64 `json:"target,omitempty"`
	// Quantile is which latency counts, from 0 to 1; 0.95 if it is left out.
	Quantile float64 `json:"quantile,omitempty"`
	// Total says that a metric of yours is of the whole fleet, such as the length of a queue, and is
	// to be divided by its replicas. Else it is what a replica has in the mean.
	Total bool `json:"total,omitempty"`
	// Steps change the number of replicas by what is measured for each; in place of Target.
	Steps []Step `json:"steps,omitempty"`
}

// Step is a change while the metric is from Above on and below Below.
type Step struct {
	Above *float64 `json:"above,omitempty"`
	Below *float64 `json:"below,omitempty"`
	// Add is how many replicas are added to those that are ready, Percent the share of them, at least
	// one; negative ones are taken away.
	Add     int     `json:"add,omitempty"`
	Percent float64 `json:"percent,omitempty"`
}

// Schedule sets Min and Max when a time comes.
type Schedule struct {
	// At is when: minute, hour, day of the month, month and day of the week as crontab(5) has them,
	// such as "0 8 * * mon-fri".
	At string `json:"at"`
	// Zone is where the clock hangs, such as Europe/Berlin; by default UTC.
	Zone string `json:"zone,omitempty"`
	// For is how long it lasts; without it until another one comes. Of several that last, the one that
	// came last counts.
	For quantity.Duration `json:"for,omitzero"`
	// Min and Max are in the place of the spec's own; what is left out stays.
	Min *int `json:"min,omitempty"`
	Max *int `json:"max,omitempty"`
}

// Burst is how a sudden load is noticed, as in Knative's autoscaler (its panic mode).
type Burst struct {
	// Off leaves it out.
	Off bool `json:"off,omitempty"`
	// Window is the shorter window; 0 means a tenth of the spec's.
	Window quantity.Duration `json:"window,omitzero"`
	// Threshold is how many times the ready replicas the shorter window must want; 0 means 2.
	Threshold float64 `json:"threshold,omitempty"`
}

// Pace is how quickly replicas are added or taken away.
type Pace struct {
	// Cooldown is how long after a change the next may come: when adding, after one that added; when
	// taking away, after any. Left out it is 0 when adding and a minute when taking away.
	Cooldown *quantity.Duration `json:"cooldown,omitempty"`
	// Stabilization is how long what is wanted must have been so: of all that was wanted in that time
	// the one that changes least counts. Left out it is 0 when adding and 5 minutes when taking away.
	Stabilization *quantity.Duration `json:"stabilization,omitempty"`
	// MaxStep is the most replicas, and MaxPercent the largest share of them, that one change adds or
	// takes away; with both the larger counts. 0 is no limit.
	MaxStep    int     `json:"max_step,omitempty"`
	MaxPercent float64 `json:"max_percent,omitempty"`
}

// Bounds and defaults.
const (
	MaxReplicas = 10_000

	defaultIdle          = 15 * time.Minute
	defaultWindow        = time.Minute
	defaultThreshold     = 2
	defaultTolerance     = 0.1
	defaultQuantile      = 0.95
	defaultInCooldown    = time.Minute
	defaultStabilization = 5 * time.Minute
)

// First is how many replicas a new fleet begins with.
func (s Spec) First() int {
	if s.Initial != nil {
		return *s.Initial
	}
	return max(s.Min, 1)
}

// LongestWindow is how far back Decide looks at measurements: older ones need not be kept.
func (s Spec) LongestWindow() time.Duration { return s.window() }

func (s Spec) most() int                              { return max(s.Min, s.Max) }
func (s Spec) idle() time.Duration                    { return or(s.Idle, defaultIdle) }
func (s Spec) window() time.Duration                  { return or(s.Window, defaultWindow) }
func (b Burst) window(of time.Duration) time.Duration { return or(b.Window, of/10) }

func (b Burst) threshold() float64 {
	if b.Threshold == 0 {
		return defaultThreshold
	}
	return b.Threshold
}

func (s Spec) tolerance() float64 {
	if s.Tolerance == nil {
		return defaultTolerance
	}
	return *s.Tolerance
}

func (p Policy) quantile() float64 {
	if p.Quantile == 0 {
		return defaultQuantile
	}
	return p.Quantile
}

// sums says that a metric grows with the load and is divided among the replicas.
func (p Policy) sums() bool {
	return p.Metric == Concurrency || p.Metric == Requests || p.Metric == Backlog || p.Total
}

// limit is how far one change may go from a number of replicas.
func (p Pace) limit(from int) int {
	if p.MaxStep == 0 && p.MaxPercent == 0 {
		return MaxReplicas
	}
	return max(p.MaxStep, int(min(float64(from)*p.MaxPercent/100, MaxReplicas)), 1)
}

func or(d quantity.Duration, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d.Std()
}

func orPointer(d *quantity.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.Std()
}

// Looks reports whether a policy is of this metric.
func (s Spec) Looks(metric Metric) bool {
	return slices.ContainsFunc(s.Policies, func(p Policy) bool { return p.Metric == metric })
}
