package tuning

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
)

// Leases of a study's trials.
const (
	DefaultSilence = 10 * time.Minute
	minSilence     = 5 * time.Second
	maxSilence     = 7 * 24 * time.Hour
	askAgain       = 2 * time.Second
)

const (
	// MaxAsk is how many trials one request may want.
	MaxAsk = 1000
	// atOnce is how many new ones it gets at most: they take a while to work out.
	atOnce = 16
)

// Ask is a worker's wish for trials of a study.
type Ask struct {
	Worker  string
	Request string // the same twice is one
	Count   int
	Silence time.Duration // how long the worker may say nothing; 0 is the default
}

// Validate reports every mistake in the wish.
func (a Ask) Validate() cluster.Problems {
	var p cluster.Problems
	checkWorker(&p, a.Worker)
	if len(a.Request) > cluster.MaxWorker {
		p.Add("request_id", "%d bytes: at most %d", len(a.Request), cluster.MaxWorker)
	}
	if a.Count < 0 || a.Count > MaxAsk {
		p.Add("count", "%d is out of range: from 0 (1) to %d", a.Count, MaxAsk)
	}
	if a.Silence != 0 && (a.Silence < minSilence || a.Silence > maxSilence) {
		p.Add("lease", "%s is out of range: from %s to %s", a.Silence, minSilence, maxSilence)
	}
	return p
}

func checkWorker(p *cluster.Problems, worker string) {
	if worker == "" || len(worker) > cluster.MaxWorker {
		p.Add("worker", "%q: say who asks, in 1 to %d bytes: only it may report and tell", cluster.Clip(worker), cluster.MaxWorker)
	}
}

// Given is the answer to an Ask.
type Given struct {
	Trials     []cluster.Trial
	Reason     string        // why there are fewer than were wanted
	Done       bool          // the study will give no more
	RetryAfter time.Duration // when to ask again
}

// Ask gives a worker trials: those that wait, those to be promoted, then new ones.
func (s *Search) Ask(a Ask, now int64) (Given, error) {
	if err := a.Validate().Err(); err != nil {
		return Given{}, fault.New(fault.Invalid, "%w", err)
	}
	if s.template != nil {
		return Given{}, fault.New(fault.Conflict, "sweep %s runs its trials itself: asking is for a study, a tuning job without a trial", s.job.Name)
	}
	var given Given
	if a.Request != "" {
		for number := range s.active {
			if t := s.live[number]; t.Worker == a.Worker && t.Request == a.Request && t.State == cluster.TrialRunning {
				given.Trials = append(given.Trials, *t)
			}
		}
		slices.SortFunc(given.Trials, func(a, b cluster.Trial) int { return cmp.Compare(a.Number, b.Number) })
	}
	for before := s.sweep.Next; len(given.Trials) < max(a.Count, 1); {
		t, why, err := s.next(now, s.sweep.Next-before < atOnce)
		if err != nil {
			return Given{}, err
		}
		if t == nil {
			given.Reason, given.Done = why.text, why.final
			if !given.Done && !why.later {
				given.RetryAfter = askAgain
			}
			break
		}
		t.Worker, t.Request, t.Silence = a.Worker, a.Request, a.Silence
		if t.Silence == 0 {
			t.Silence = DefaultSilence
		}
		t.Lease = now + int64(t.Silence)
		if err := s.start(t, now); err != nil {
			return Given{}, err
		}
		given.Trials = append(given.Trials, *t)
	}
	return given, nil
}

// start begins a trial, or goes on with it.
func (s *Search) start(t *cluster.Trial, now int64) error {
	if t.State == cluster.TrialPaused {
		if err := s.history.Resume(int(t.Number)); err != nil {
			return err
		}
	}
	t.Runs++
	t.Reason = ""
	if t.Started == 0 {
		t.Started = now
	}
	if s.sweep.Started == 0 {
		s.sweep.Started = now
	}
	s.move(t, cluster.TrialRunning)
	return nil
}

// numbers are those of the trials that wait or run, ascending.
func (s *Search) numbers() []int64 { return slices.Sorted(maps.Keys(s.active)) }

// whyNot says why no trial begins now.
type whyNot struct {
	text  string
	final bool // none ever will
	later bool // the next look may make one
}

// next is the trial to begin now: one that waits, one that is promoted, or a new one if it
// may be made.
func (s *Search) next(now int64, make bool) (*cluster.Trial, whyNot, error) {
	if why, may := s.mayBegin(now); !may {
		return nil, why, nil
	}
	if t := s.waiting(); t != nil {
		return t, whyNot{}, nil
	}
	if t := s.promoted(); t != nil {
		if child, exists := s.children[t.Job]; exists && !child.Job.State.Ended() {
			return nil, whyNot{text: fmt.Sprintf("trial %d goes on as soon as its checkpoint is saved", t.Number)}, nil
		}
		return t, whyNot{}, nil
	}
	if why, may := s.mayPropose(now); !may {
		return nil, why, nil
	}
	if !make {
		return nil, whyNot{text: "ask again for more", later: true}, nil
	}
	number, err := tuner.Ask(s.sampler, s.history)
	switch {
	case errors.Is(err, tuner.ErrExhausted), errors.Is(err, tuner.ErrCrowded):
		s.close(err.Error())
		return nil, whyNot{text: s.sweep.Closed, final: s.sweep.Counts.Live() == 0}, nil
	case err != nil:
		return nil, whyNot{}, fault.New(fault.Internal, "propose trial %d: %w", s.history.Len(), err)
	}
	return s.enter(number, cluster.TrialWaiting), whyNot{}, nil
}

// waiting is the first trial that waits, nil if none does.
func (s *Search) waiting() *cluster.Trial {
	if s.sweep.Counts.Waiting == 0 {
		return nil
	}
	first := int64(math.MaxInt64)
	for number := range s.active {
		if s.live[number].State == cluster.TrialWaiting {
			first = min(first, number)
		}
	}
	return s.live[first]
}

// promoted is the paused trial that is to go on, nil if there is none.
func (s *Search) promoted() *cluster.Trial {
	if s.stopper == nil || s.sweep.Counts.Paused == 0 {
		return nil
	}
	number, ok := s.stopper.promote(s.history)
	if !ok {
		return nil
	}
	return s.live[int64(number)]
}

// mayBegin says whether a trial may begin now, be it new or not.
func (s *Search) mayBegin(now int64) (whyNot, bool) {
	switch {
	case s.ending():
		return whyNot{text: fmt.Sprintf("the sweep has ended, or is about to: it is %s", s.job.State), final: true}, false
	case s.job.State != cluster.JobRunning:
		return whyNot{text: "the sweep has not begun: it is " + string(s.job.State)}, false
	case s.sweep.Halt || s.sweep.Closed != "" && s.sweep.Counts.Live() == 0:
		return whyNot{text: s.sweep.Closed, final: true}, false
	case s.sweep.Paused:
		return whyNot{text: "the sweep pauses"}, false
	case s.sweep.Counts.Running+s.lingering() >= int64(s.sweep.Parallel):
		return whyNot{text: fmt.Sprintf("%d trials run, as many as may at once", s.sweep.Counts.Running)}, false
	}
	return whyNot{}, true
}

// mayPropose says whether a new trial may be made.
func (s *Search) mayPropose(now int64) (whyNot, bool) {
	if reason := s.spent(now); reason != "" {
		return whyNot{text: reason, final: s.sweep.Counts.Live() == 0}, false
	}
	return whyNot{}, true
}
