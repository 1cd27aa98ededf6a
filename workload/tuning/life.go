package tuning

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// Advance takes the sweep a step on: it begins the job, ends leases and budgets, and ends
// the job when all is done.
func (s *Search) Advance(now int64) error {
	switch {
	case s.job.State.Ended():
		return nil
	case s.job.State == cluster.JobQueued:
		s.begin(now)
		return nil
	}
	if s.job.State == cluster.JobRunning {
		s.limit(now)
	}
	if err := s.leases(now); err != nil {
		return err
	}
	if err := s.windDown(now); err != nil {
		return err
	}
	s.finish(now)
	return nil
}

// begin lets the job run, unless it is held.
func (s *Search) begin(now int64) {
	job := s.job
	switch {
	case job.Cancel:
		job.State, job.Reason, job.Ended = cluster.JobCancelled, "cancelled", now
	case job.Held:
		return
	default:
		job.State, job.Reason, job.Started = cluster.JobRunning, "", now
	}
	s.unsaved.job = &job
}

// ending reports that the job makes no more trials, and is on its way to its end.
func (s *Search) ending() bool {
	return s.job.Cancel || s.job.State == cluster.JobStopping || s.job.State == cluster.JobPublishing || s.job.State.Ended()
}

// limit stops a sweep whose time or money is gone, or in which nothing succeeds.
func (s *Search) limit(now int64) {
	budget := s.sweep.Budget
	if end := s.timeEnd(); end != 0 && now >= end {
		s.halt(fmt.Sprintf("its time of %s is up", budget.Time))
	}
	if budget.Cost > 0 && s.costNow(now) >= budget.Cost {
		s.halt(fmt.Sprintf("its budget of %v is spent", budget.Cost))
	}
	counts := s.sweep.Counts
	if failed := counts.Failed + counts.Infeasible; failed >= s.maxFailed() && counts.Complete+counts.Stopped == 0 {
		s.halt(fmt.Sprintf("%d trials have failed, and none has succeeded", failed))
	}
}

func (s *Search) maxFailed() int64 {
	if s.spec.MaxFailed > 0 {
		return int64(s.spec.MaxFailed)
	}
	if s.template == nil {
		return max(5, s.sweep.Counts.Running)
	}
	return max(5, int64(s.sweep.Parallel))
}

// spent says why no new trial is made, "" if one may be.
func (s *Search) spent(int64) string {
	if s.sweep.Closed != "" {
		return s.sweep.Closed
	}
	if budget := s.sweep.Budget.Trials; budget > 0 && s.sweep.Next >= budget {
		return fmt.Sprintf("all %d trials of its budget were made", budget)
	}
	return ""
}

// timeEnd is when the sweep's time is up; 0 if it has no end, or pauses.
func (s *Search) timeEnd() int64 {
	if s.sweep.Budget.Time == 0 || s.sweep.Started == 0 || s.sweep.Paused {
		return 0
	}
	return s.sweep.Started + int64(s.sweep.PausedIn) + int64(s.sweep.Budget.Time)
}

// leases takes trials from workers that are silent.
func (s *Search) leases(now int64) error {
	var silent []int64
	for number := range s.active {
		if t := s.live[number]; t.State == cluster.TrialRunning && t.Lease != 0 && now >= t.Lease {
			silent = append(silent, number)
		}
	}
	slices.Sort(silent)
	for _, number := range silent {
		t := s.live[number]
		reason := fmt.Sprintf("worker %s was silent for %s", t.Worker, t.Silence)
		if t.Failures < s.job.Retry.Limit {
			s.again(t, reason)
			continue
		}
		t.Failures++
		if err := s.end(t, ending{state: cluster.TrialFailed, reason: reason}, now); err != nil {
			return err
		}
	}
	return nil
}

// maxEnds is how many trials end in one step when all do, so that records stay small.
const maxEnds = 1000

// windDown ends what lives of a sweep that is to end: all of it if it was told so, and else
// what has no chance to go on.
func (s *Search) windDown(now int64) error {
	var e ending
	closed := s.spent(now) != ""
	switch {
	case s.ending() && s.job.State != cluster.JobPublishing:
		e = ending{state: cluster.TrialCancelled, reason: "the sweep was stopped"}
	case s.sweep.Halt && s.sweep.Counts.Complete+s.sweep.Counts.Stopped == 0 && s.sweep.Counts.Failed > 0:
		e = ending{state: cluster.TrialCancelled, reason: "the sweep has ended: " + s.sweep.Closed}
	case s.sweep.Halt:
		e = ending{state: cluster.TrialStopped, reason: "the sweep has ended: " + s.sweep.Closed}
	case closed && !s.sweep.Paused && s.sweep.Counts.Running+s.sweep.Counts.Waiting == 0 && s.sweep.Counts.Paused > 0 && s.promoted() == nil:
		e = ending{state: cluster.TrialStopped, reason: "others were better at its step"}
	default:
		return nil
	}
	for i, number := range slices.Sorted(maps.Keys(s.live)) {
		if i == maxEnds {
			return nil
		}
		t := s.live[number]
		last := e
		if e.state == cluster.TrialStopped {
			if point, known := s.lastPoint(t); known {
				last.values = []float64{point.value}
			}
		}
		if err := s.end(t, last, now); err != nil {
			return err
		}
	}
	return nil
}

// finish ends the job when no trial lives and none comes, one state at a time.
func (s *Search) finish(now int64) {
	job := s.job
	done := s.sweep.Counts.Live() == 0 && !s.anyLives()
	switch {
	case job.State == cluster.JobPublishing:
		if !done {
			return
		}
		job.State, job.Ended = cluster.JobSucceeded, now
	case job.State == cluster.JobStopping:
		if !done {
			return
		}
		if job.State, job.Ended = cluster.JobFailed, now; job.Cancel {
			job.State = cluster.JobCancelled
		}
	case job.Cancel:
		job.State = cluster.JobStopping
		if job.Reason == "" {
			job.Reason = "cancelled"
		}
	case s.overrun(now):
		job.State, job.Reason = cluster.JobStopping, "ran longer than its maximum run time of "+job.MaxRuntime.String()
	case done && s.spent(now) != "" && !s.sweep.Paused:
		job.State, job.Reason = cluster.JobPublishing, s.spent(now)
		if reason := s.fruitless(); reason != "" {
			job.State, job.Ended, job.Reason = cluster.JobFailed, now, reason
		}
	default:
		return
	}
	s.unsaved.job = &job
}

// fruitless says why a sweep that is over has found nothing; "" if it has, or was to try
// nothing.
func (s *Search) fruitless() string {
	counts := s.sweep.Counts
	switch {
	case counts.Complete > 0 || counts.Total() == counts.Cancelled:
		return ""
	case counts.Stopped == 0:
		return fmt.Sprintf("none of its %d trials has succeeded; the last that failed: %s", counts.Total(), s.failure.Reason)
	}
	return fmt.Sprintf("none of its %d trials has come to its end: %s", counts.Total(), s.spent(0))
}

// anyLives reports whether a job of the sweep has not ended.
func (s *Search) anyLives() bool {
	for _, child := range s.children {
		if !child.Job.State.Ended() {
			return true
		}
	}
	return false
}

func (s *Search) overrun(now int64) bool {
	return s.job.MaxRuntime > 0 && s.job.Started > 0 && now >= s.job.Started+int64(s.job.MaxRuntime)
}

// WakeAt is when to advance even if nothing happens; 0 is never. What has come about already,
// such as the end of the time that it may take, is no reason any more.
func (s *Search) WakeAt(now int64) int64 {
	if s.job.State.Ended() {
		return 0
	}
	wake := int64(0)
	sooner := func(at int64) {
		if at != 0 && (wake == 0 || at < wake) {
			wake = at
		}
	}
	for number := range s.active {
		sooner(s.live[number].Lease)
	}
	if s.ending() {
		return wake
	}
	if s.job.MaxRuntime > 0 && s.job.Started > 0 {
		sooner(s.job.Started + int64(s.job.MaxRuntime))
	}
	if s.sweep.Halt {
		return wake
	}
	sooner(s.timeEnd())
	if budget := s.sweep.Budget.Cost; budget > 0 {
		if rate := s.costRate(); rate > 0 {
			left := (budget - s.costNow(now)) / rate * float64(time.Hour)
			sooner(now + int64(min(max(left, float64(time.Second)), float64(time.Hour))))
		}
	}
	return wake
}

// TimeLeft estimates how long the sweep goes on; negative if it is unknown.
func TimeLeft(job cluster.Job, sweep cluster.Sweep, now int64) time.Duration {
	left := time.Duration(-1)
	if job.State.Ended() {
		return 0
	}
	if sweep.Started == 0 {
		return left
	}
	elapsed := time.Duration(now-sweep.Started) - sweep.PausedIn
	if sweep.Paused {
		elapsed = time.Duration(sweep.PausedAt-sweep.Started) - sweep.PausedIn
	}
	if sweep.Budget.Time > 0 {
		left = max(sweep.Budget.Time-elapsed, 0)
	}
	ended := sweep.Counts.Total() - sweep.Counts.Live()
	if budget := sweep.Budget.Trials; budget > 0 && ended > 0 {
		byTrials := time.Duration(float64(elapsed) / float64(ended) * float64(max(budget-ended, 0)))
		if left < 0 || byTrials < left {
			left = byTrials
		}
	}
	return left
}
