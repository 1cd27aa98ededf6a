package tuning

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/tuner/stop"
)

// Search is one sweep while it goes on: its rows, and what they say to its sampler. What it
// is told changes it at once; Changes are what of that is not in the log yet. It is for one
// goroutine.
type Search struct {
	spec     Spec
	job      cluster.Job
	space    *space.Space
	template *template // nil: a study
	history  *tuner.History
	sampler  tuner.Sampler
	stopper  *stopper // nil: none
	enders   []stop.Ender

	sweep    cluster.Sweep
	live     map[int64]*cluster.Trial // that have not ended
	active   map[int64]bool           // of those, that wait or run: the paused may be very many
	failure  cluster.Trial            // the last that failed
	notes    map[int64][]note         // points that are kept for people only
	children map[string]Child         // the jobs that it has made, as they were last seen
	unsaved  unsaved
}

// ErrEnded says that a sweep has ended, and has no search any more.
var ErrEnded = fault.New(fault.Conflict, "the sweep has ended")

// note is a point of a curve that the search does not learn from.
type note struct{ step, value float64 }

// unsaved is what has changed since Changes was last asked.
type unsaved struct {
	sweep  bool
	trials map[int64]cluster.Trial // those that have ended too
	make   []cluster.Job
	job    *cluster.Job
}

// Earlier is a sweep to learn from.
type Earlier struct {
	Job    cluster.Job
	Trials iter.Seq[cluster.Trial]
}

// NewSearch builds the search of a tuning job from its rows: what changes of it, and all its
// trials in the order of their numbers. A job that has not begun has a zero sweep.
func NewSearch(job cluster.Job, sweep cluster.Sweep, trials iter.Seq[cluster.Trial], earlier []Earlier) (*Search, error) {
	spec, err := read(job.Spec)
	if err != nil {
		return nil, fault.New(fault.Invalid, "its spec cannot be read: %w", err)
	}
	s := &Search{
		spec: spec, job: job, sweep: sweep, live: map[int64]*cluster.Trial{}, active: map[int64]bool{}, notes: map[int64][]note{},
		unsaved: unsaved{trials: map[int64]cluster.Trial{}},
	}
	if s.space, err = spec.Space.spec().Compile(); err != nil {
		return nil, fault.New(fault.Invalid, "its space: %w", err)
	}
	if spec.Trial != nil {
		t, err := newTemplate(spec)
		if err != nil {
			return nil, err
		}
		s.template = &t
	}
	problem, problems := spec.problem(s.space)
	if err := problems.Err(); err != nil {
		return nil, fault.New(fault.Invalid, "its spec: %w", err)
	}
	for _, e := range earlier {
		before, err := e.problem()
		if err != nil {
			return nil, err
		}
		problem.Earlier = append(problem.Earlier, before)
	}
	if s.sampler, err = spec.newSampler(problem); err != nil {
		return nil, err
	}
	if s.stopper, problems = spec.Stopper.make(problem.Fidelity); len(problems) > 0 {
		return nil, fault.New(fault.Invalid, "its stopper: %w", problems)
	}
	s.enders = spec.enders()
	s.history, err = tuner.Restore(problem, s.load(trials))
	return s, err
}

// load turns rows into trials of the history, and keeps those that live.
func (s *Search) load(rows iter.Seq[cluster.Trial]) iter.Seq[tuner.Trial] {
	return func(yield func(tuner.Trial) bool) {
		for row := range rows {
			if !row.State.Ended() {
				s.live[row.Number] = &row
				s.activate(&row)
			}
			s.mourn(row)
			if !yield(trialOf(row)) {
				return
			}
		}
	}
}

var states = map[cluster.TrialState]tuner.State{
	cluster.TrialComplete: tuner.Complete, cluster.TrialStopped: tuner.Stopped, cluster.TrialFailed: tuner.Failed,
	cluster.TrialInfeasible: tuner.Infeasible, cluster.TrialCancelled: tuner.Cancelled, cluster.TrialPaused: tuner.Paused,
}

// mourn remembers the last trial that failed.
func (s *Search) mourn(row cluster.Trial) {
	if (row.State == cluster.TrialFailed || row.State == cluster.TrialInfeasible) && row.Order >= s.failure.Order {
		s.failure = row
	}
}

// trialOf is a row as the history has it.
func trialOf(row cluster.Trial) tuner.Trial {
	t := tuner.Trial{Number: int(row.Number), Config: row.Config, State: states[row.State], Order: row.Order}
	if t.State == tuner.Complete {
		t.Values, t.Limits = row.Values, row.Limits
	}
	for _, point := range row.Curve {
		if point.Order > 0 {
			t.Curve = append(t.Curve, tuner.Point{Step: point.Step, Value: point.Value, Order: point.Order})
		}
	}
	return t
}

func (e Earlier) problem() (tuner.Earlier, error) {
	spec, err := read(e.Job.Spec)
	if err != nil {
		return tuner.Earlier{}, fault.New(fault.Invalid, "warm_start: the spec of %s cannot be read: %w", e.Job.Name, err)
	}
	before := tuner.Earlier{Objectives: spec.Objectives}
	if before.Space, err = spec.Space.spec().Compile(); err != nil {
		return tuner.Earlier{}, fault.New(fault.Invalid, "warm_start: the space of %s: %w", e.Job.Name, err)
	}
	for row := range e.Trials {
		if row.State == cluster.TrialComplete {
			before.Trials = append(before.Trials, trialOf(row))
		}
	}
	return before, nil
}

// Changes are what is to be put into the log. Revisions are those that were read; a new
// noun's is 0. Sweep, trials and new jobs belong into one record, which checks the revision
// of the tuning job.
type Changes struct {
	Job    *cluster.Job
	Sweep  *cluster.Sweep
	Trials []cluster.Trial // by number
	Make   []cluster.Job   // trials' new jobs
}

// Empty reports whether there is nothing to put.
func (c Changes) Empty() bool {
	return c.Job == nil && c.Sweep == nil && len(c.Trials) == 0 && len(c.Make) == 0
}

// Changes are what has changed since the last Saved.
func (s *Search) Changes() Changes {
	c := Changes{Job: s.unsaved.job, Make: s.unsaved.make}
	if s.unsaved.sweep {
		sweep := s.sweep
		c.Sweep = &sweep
	}
	for _, number := range slices.Sorted(maps.Keys(s.unsaved.trials)) {
		c.Trials = append(c.Trials, s.unsaved.trials[number])
	}
	return c
}

// Unsaved is how many trials have changed since the last Saved.
func (s *Search) Unsaved() int { return len(s.unsaved.trials) }

// Saved says that the changes are in the log, at a revision.
func (s *Search) Saved(revision uint64) {
	if s.unsaved.sweep {
		s.sweep.Revision = revision
	}
	for number := range s.unsaved.trials {
		if t := s.live[number]; t != nil {
			t.Revision = revision
		}
	}
	if s.unsaved.job != nil {
		s.job = *s.unsaved.job
		s.job.Revision = revision
	}
	s.unsaved = unsaved{trials: map[int64]cluster.Trial{}}
}

// Is reports whether the search stands where the rows do.
func (s *Search) Is(sweep cluster.Sweep) bool { return s.sweep.Revision == sweep.Revision }

// Follow takes note of the tuning job as it is now.
func (s *Search) Follow(job cluster.Job) { s.job = job }

// Sweep is what changes of the sweep, with what is not saved yet.
func (s *Search) Sweep() cluster.Sweep { return s.sweep }

// Values are the active parameters of a trial.
func (s *Search) Values(t cluster.Trial) map[string]expr.Value { return s.space.Values(t.Config) }

// Len is how many trials there are.
func (s *Search) Len() int { return s.history.Len() }

// touch notes that a trial has changed.
func (s *Search) touch(t *cluster.Trial) { s.unsaved.trials[t.Number] = *t; s.unsaved.sweep = true }

// move brings a live trial into another state.
func (s *Search) move(t *cluster.Trial, to cluster.TrialState) {
	if t.State != "" {
		*s.sweep.Counts.Of(t.State)--
	}
	t.State = to
	*s.sweep.Counts.Of(to)++
	s.touch(t)
	s.activate(t)
}

func (s *Search) activate(t *cluster.Trial) {
	if t.State == cluster.TrialWaiting || t.State == cluster.TrialRunning {
		s.active[t.Number] = true
	} else {
		delete(s.active, t.Number)
	}
}

// enter makes a row of a trial that the history has just got.
func (s *Search) enter(number int, state cluster.TrialState) *cluster.Trial {
	t := &cluster.Trial{
		Sweep: s.job.Name, Number: int64(number), Config: slices.Clone(s.history.Config(number)), Since: s.sweep.Order,
	}
	s.live[t.Number] = t
	s.sweep.Next++
	s.move(t, state)
	return t
}

// report adds a point to a live trial's curve. A step that is not wanted is kept for people,
// and the search does not learn from it.
func (s *Search) report(t *cluster.Trial, step, value float64) (stop.Verdict, error) {
	last := 0.0
	if n := len(t.Curve); n > 0 {
		last = t.Curve[n-1].Step
	}
	finite := !math.IsNaN(value) && !math.IsInf(value, 0)
	if s.stopper == nil || !finite || !s.stopper.wants(last, step) || len(t.Curve) >= cluster.MaxCurve {
		s.notes[t.Number] = append(s.notes[t.Number], note{step, value})
		return stop.Continue, nil
	}
	if err := s.history.Report(int(t.Number), step, value); err != nil {
		return stop.Continue, err
	}
	s.sweep.Order++
	t.Curve = append(t.Curve, cluster.CurvePoint{Step: step, Value: value, Order: s.sweep.Order})
	s.touch(t)
	return s.stopper.Judge(s.history, int(t.Number)), nil
}

// ending is how a trial ends.
type ending struct {
	state  cluster.TrialState
	reason string
	values []float64
	limits []float64
}

// end ends a live trial.
func (s *Search) end(t *cluster.Trial, e ending, now int64) error {
	result := tuner.Result{State: states[e.state]}
	if e.state == cluster.TrialComplete {
		result.Values, result.Limits = e.values, e.limits
	}
	if err := s.history.End(int(t.Number), result); err != nil {
		return err
	}
	s.sweep.Order++
	s.charge(t, now)
	t.Order, t.Ended, t.Reason = s.sweep.Order, now, cut(e.reason)
	t.Values, t.Limits = e.values, e.limits
	t.Request, t.Lease, t.Silence = "", 0, 0
	t.Curve = mix(t.Curve, s.notes[t.Number])
	s.sweep.Cost += t.Cost
	s.move(t, e.state)
	s.mourn(*t)
	delete(s.live, t.Number)
	delete(s.notes, t.Number)
	s.rank()
	return nil
}

// rank notes the best trial, and ends the sweep if that is how it should end.
func (s *Search) rank() {
	if best, ok := s.history.Best(); ok {
		s.sweep.Best = int64(best)
		s.sweep.BestValues = slices.Clone(s.history.Values(best))
		s.sweep.BestLimits = nil
		if len(s.spec.Limits) > 0 {
			s.sweep.BestLimits = slices.Clone(s.history.Limits(best))
		}
	}
	for _, ender := range s.enders {
		if s.sweep.Halt {
			return
		}
		if reason := ender.Over(s.history); reason != "" {
			s.halt(reason)
		}
	}
}

func (s *Search) close(reason string) {
	if s.sweep.Closed == "" {
		s.sweep.Closed = cut(reason)
		s.unsaved.sweep = true
	}
}

// halt closes the sweep, and what still runs is stopped.
func (s *Search) halt(reason string) {
	if !s.sweep.Halt {
		s.close(reason)
		s.sweep.Halt, s.unsaved.sweep = true, true
	}
}

func (s *Search) describe(values, limits []float64) string {
	text := ""
	for i, v := range values {
		text += fmt.Sprintf(", %s %v", s.spec.Objectives[i].Name, v)
	}
	for i, v := range limits {
		text += fmt.Sprintf(", %s %v", s.spec.Limits[i].Name, v)
	}
	return text[min(len(text), 2):]
}

// mix adds notes to the points of a curve: of many, some that are evenly spread.
func mix(curve []cluster.CurvePoint, notes []note) []cluster.CurvePoint {
	stride := max((len(notes)+keptNotes-1)/keptNotes, 1)
	for i, n := range notes {
		if i%stride == stride-1 || i == len(notes)-1 {
			curve = append(curve, cluster.CurvePoint{Step: n.step, Value: n.value})
		}
	}
	slices.SortStableFunc(curve, func(a, b cluster.CurvePoint) int { return cmp.Compare(a.Step, b.Step) })
	return curve[:min(len(curve), cluster.MaxCurve)]
}

func cut(text string) string {
	if len(text) <= cluster.MaxTrialText {
		return text
	}
	for i := cluster.MaxTrialText - 3; ; i-- {
		if text[i]&0xC0 != 0x80 { // the first byte of a letter
			return text[:i] + "…"
		}
	}
}
