package tuning

import (
	"fmt"
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/stop"
)

// find is a live trial that a worker may speak for. A trial that has ended is found too.
func (s *Search) find(number int64, worker string, ended func(int64) (cluster.Trial, bool)) (*cluster.Trial, error) {
	if number < 0 || number >= s.sweep.Next {
		return nil, fault.New(fault.NotFound, "trial: sweep %s has no trial %d: it has %d, from 0", s.job.Name, number, s.sweep.Next)
	}
	if s.template != nil {
		return nil, fault.New(fault.Conflict, "sweep %s runs its trials itself: nobody else tells of them", s.job.Name)
	}
	t := s.live[number]
	if t == nil {
		row, ok := ended(number)
		if !ok {
			return nil, fault.New(fault.NotFound, "trial: sweep %s has no trial %d", s.job.Name, number)
		}
		t = &row
	}
	if t.Worker != worker {
		return nil, fault.New(fault.Denied, "trial: %d belongs to worker %q: %q may not speak for it (a worker that is silent for longer than its lease loses its trials)",
			number, cluster.Clip(t.Worker), cluster.Clip(worker))
	}
	return t, nil
}

// Report is what a worker says of a trial on its way.
type Report struct {
	Number int64
	Worker string
	Point  bool // there is a point; without one the report only renews the lease
	Step   float64
	Value  float64
}

// Advice is the answer to a Report.
type Advice struct {
	GoOn   bool
	Reason string
	Paused bool
	Lease  int64
}

// Report takes a point of a trial's curve, and says whether the trial is to go on. ended
// reads a row of a trial that has ended.
func (s *Search) Report(r Report, ended func(int64) (cluster.Trial, bool), now int64) (Advice, error) {
	var p cluster.Problems
	checkWorker(&p, r.Worker)
	if r.Point && (!(r.Step > 0) || math.IsInf(r.Step, 0)) {
		p.Add("step", "%v: steps are above 0 and ascend", r.Step)
	}
	if err := p.Err(); err != nil {
		return Advice{}, fault.New(fault.Invalid, "%w", err)
	}
	t, err := s.find(r.Number, r.Worker, ended)
	if err != nil {
		return Advice{}, err
	}
	switch {
	case t.State.Ended():
		return Advice{Reason: fmt.Sprintf("the trial is %s: %s", t.State, t.Reason)}, nil
	case t.State == cluster.TrialPaused:
		return Advice{Reason: t.Reason, Paused: true}, nil
	}
	fresh, err := s.fresh(t, r)
	if err != nil {
		return Advice{}, err
	}
	switch {
	case t.State == cluster.TrialWaiting: // nobody took it since its lease ended
		t.Reason = ""
		t.Lease = now + int64(t.Silence)
		s.move(t, cluster.TrialRunning)
	case t.Lease-now < int64(t.Silence)/2: // that is soon enough, and spares the log
		t.Lease = now + int64(t.Silence)
		s.touch(t)
	}
	if fresh {
		verdict, err := s.report(t, r.Step, r.Value)
		if err != nil {
			return Advice{}, err
		}
		if err := s.obey(t, verdict, now); err != nil {
			return Advice{}, err
		}
	}
	return s.advice(t), nil
}

// fresh reports whether a report has a point that is not known yet; the same again is no
// mistake.
func (s *Search) fresh(t *cluster.Trial, r Report) (bool, error) {
	last, known := s.lastPoint(t)
	switch {
	case !r.Point || known && last.step == r.Step && (last.value == r.Value || math.IsNaN(r.Value)):
		return false, nil
	case known && r.Step <= last.step:
		return false, fault.New(fault.Invalid, "step: %v: trial %d has reported step %v: steps ascend", r.Step, t.Number, last.step)
	}
	return true, nil
}

// lastPoint is the newest point of a live trial's curve.
func (s *Search) lastPoint(t *cluster.Trial) (note, bool) {
	last, known := note{}, false
	if n := len(t.Curve); n > 0 {
		last, known = note{t.Curve[n-1].Step, t.Curve[n-1].Value}, true
	}
	if notes := s.notes[t.Number]; len(notes) > 0 && notes[len(notes)-1].step > last.step {
		last, known = notes[len(notes)-1], true
	}
	return last, known
}

// obey does what the stopper has decided.
func (s *Search) obey(t *cluster.Trial, verdict stop.Verdict, now int64) error {
	last, _ := s.lastPoint(t)
	switch verdict {
	case stop.Stop:
		return s.end(t, ending{state: cluster.TrialStopped, reason: fmt.Sprintf("not worth going on with after step %v", last.step), values: []float64{last.value}}, now)
	case stop.Pause:
		if err := s.history.Pause(int(t.Number)); err != nil {
			return err
		}
		t.Reason = fmt.Sprintf("waits at step %v: it goes on if it is among the best there", last.step)
		t.Lease, t.Request = 0, ""
		if s.template != nil {
			t.Checkpoints = cluster.CheckpointsOf(t.Job)
		}
		s.charge(t, now)
		s.move(t, cluster.TrialPaused)
	}
	return nil
}

func (s *Search) advice(t *cluster.Trial) Advice {
	switch t.State {
	case cluster.TrialRunning:
		return Advice{GoOn: true, Lease: t.Lease}
	case cluster.TrialPaused:
		return Advice{Reason: t.Reason, Paused: true}
	}
	return Advice{Reason: t.Reason}
}

// Tell is how a worker says that a trial has ended.
type Tell struct {
	Number  int64
	Worker  string
	State   cluster.TrialState // complete if it is empty; or failed, infeasible, cancelled
	Metrics map[string]float64
	Reason  string
	Cost    float64
	Model   string
}

// Told is the answer to a Tell.
type Told struct {
	Trial cluster.Trial
	Best  bool
	Done  bool // the study will give no more trials
}

// Tell ends a trial. The same once more is no mistake.
func (s *Search) Tell(r Tell, ended func(int64) (cluster.Trial, bool), now int64) (Told, error) {
	e, err := s.endingOf(r)
	if err != nil {
		return Told{}, err
	}
	t, err := s.find(r.Number, r.Worker, ended)
	if err != nil {
		return Told{}, err
	}
	if again := t.State == e.state && slices.Equal(t.Values, e.values) || t.State == cluster.TrialWaiting && e.state == cluster.TrialFailed; again {
		return s.told(*t, now), nil
	}
	if t.State.Ended() {
		return Told{}, fault.New(fault.Conflict, "trial: %d is %s already: %s", t.Number, t.State, t.Reason)
	}
	t.Cost += r.Cost
	t.Model = r.Model
	if e.state == cluster.TrialFailed && t.Failures < s.job.Retry.Limit {
		s.again(t, e.reason)
		return s.told(*t, now), nil
	}
	if err := s.end(t, e, now); err != nil {
		return Told{}, err
	}
	return s.told(*t, now), nil
}

// again has a trial run once more by whoever asks next.
func (s *Search) again(t *cluster.Trial, reason string) {
	t.Failures++
	t.Lease, t.Request = 0, ""
	t.Reason = cut(fmt.Sprintf("is run again, after: %s", reason))
	s.move(t, cluster.TrialWaiting)
}

func (s *Search) told(t cluster.Trial, now int64) Told {
	_, may := s.mayPropose(now)
	return Told{
		Trial: t, Best: len(s.sweep.BestValues) > 0 && s.sweep.Best == t.Number,
		Done: !may && s.sweep.Counts.Live() == 0,
	}
}

// endingOf checks what a worker tells.
func (s *Search) endingOf(r Tell) (ending, error) {
	var p cluster.Problems
	checkWorker(&p, r.Worker)
	if !(r.Cost >= 0) || math.IsInf(r.Cost, 0) {
		p.Add("cost", "%v: give a number from 0", r.Cost)
	}
	if len(r.Model) > cluster.MaxTrialText {
		p.Add("model", "%d bytes: at most %d", len(r.Model), cluster.MaxTrialText)
	}
	e := ending{state: r.State, reason: r.Reason}
	switch r.State {
	case "", cluster.TrialComplete:
		e.state, e.reason = cluster.TrialComplete, ""
		var missing []string
		e.values, e.limits, missing = s.pick(r.Metrics)
		for _, name := range missing {
			p.Add("metrics."+cluster.Clip(name), "is missing: a complete trial has a value for each objective and limit")
		}
	case cluster.TrialFailed, cluster.TrialInfeasible, cluster.TrialCancelled:
		if e.reason == "" {
			e.reason = "its worker said so"
		}
	default:
		p.Add("state", "%q: a worker tells complete, failed, infeasible or cancelled", cluster.Clip(string(r.State)))
	}
	if err := p.Err(); err != nil {
		return ending{}, fault.New(fault.Invalid, "%w", err)
	}
	return s.sane(e), nil
}

// sane makes a failure of values that nothing can be learned from.
func (s *Search) sane(e ending) ending {
	strange := func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }
	if e.state == cluster.TrialComplete && (slices.ContainsFunc(e.values, strange) || slices.ContainsFunc(e.limits, strange)) {
		return ending{state: cluster.TrialFailed, reason: "a metric is not finite: " + s.describe(e.values, e.limits)}
	}
	return e
}

// pick takes the objectives and limits out of metrics.
func (s *Search) pick(metrics map[string]float64) (values, limits []float64, missing []string) {
	for _, o := range s.spec.Objectives {
		v, said := metrics[o.Name]
		if !said {
			missing = append(missing, o.Name)
		}
		values = append(values, v)
	}
	for _, l := range s.spec.Limits {
		v, said := metrics[l.Name]
		if !said {
			missing = append(missing, l.Name)
		}
		limits = append(limits, v)
	}
	return values, limits, missing
}
