package tuning

import (
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/expr"
)

// Add makes a trial of a configuration that somebody wants to see tried. The same request
// twice is one.
func (s *Search) Add(values map[string]expr.Value, by, request string) (cluster.Trial, error) {
	if err := s.going(); err != nil {
		return cluster.Trial{}, err
	}
	config, problems := s.space.Parse(values)
	if len(problems) > 0 {
		var p cluster.Problems
		p.Under("parameters", problems)
		return cluster.Trial{}, fault.New(fault.Invalid, "%w", p)
	}
	for _, number := range s.numbers() {
		if t := s.live[number]; request != "" && t.Request == request && t.By == by {
			return *t, nil
		}
	}
	number, err := s.history.Add(config)
	if err != nil {
		return cluster.Trial{}, err
	}
	t := s.enter(number, cluster.TrialWaiting)
	t.By, t.Request = by, request
	t.Reason = "added by " + by
	s.touch(t)
	return *t, nil
}

// going refuses to change a sweep that has ended, or not begun.
func (s *Search) going() error {
	switch {
	case s.ending():
		return fault.New(fault.Conflict, "sweep %s has ended, or is about to: begin another with warm_start: [%s]", s.job.Name, s.job.Name)
	case s.job.State != cluster.JobRunning:
		return fault.New(fault.Unready, "sweep %s has not begun: it is %s", s.job.Name, s.job.State)
	}
	return nil
}

// Control is what somebody wants changed; nil stays as it is.
type Control struct {
	Pause    *bool
	Parallel *int32
	Trials   *int64
	Time     *time.Duration
	Cost     *float64
	// Close has no new trial begin any more, and says why; "" does not.
	Close string
}

// Control changes how the sweep goes on.
func (s *Search) Control(c Control, now int64) error {
	if err := s.going(); err != nil {
		return err
	}
	next := s.sweep
	if c.Parallel != nil {
		next.Parallel = *c.Parallel
	}
	if c.Trials != nil {
		next.Budget.Trials = *c.Trials
	}
	if c.Time != nil {
		next.Budget.Time = *c.Time
	}
	if c.Cost != nil {
		next.Budget.Cost = *c.Cost
	}
	if c.Pause != nil && *c.Pause != next.Paused {
		if next.Paused = *c.Pause; next.Paused {
			next.PausedAt = now
		} else {
			next.PausedIn += time.Duration(now - next.PausedAt)
			next.PausedAt = 0
		}
	}
	if c.Close != "" && next.Closed == "" {
		next.Closed = cut(c.Close)
		if next.Paused { // nothing would end it
			next.Paused, next.PausedAt, next.PausedIn = false, 0, next.PausedIn+time.Duration(now-next.PausedAt)
		}
	}
	if problems := next.Validate(); len(problems) > 0 {
		return fault.New(fault.Invalid, "%w", problems)
	}
	s.sweep = next
	s.unsaved.sweep = true
	return nil
}
