package tuning

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
)

// Child is a job that the sweep has made, with what belongs to it.
type Child struct {
	Job         cluster.Job
	Tasks       []cluster.Task // of all attempts that are kept
	Publication *cluster.Publication
}

// Labels that a trial's job carries.
const (
	LabelSweep = "sweep"
	LabelTrial = "trial"
)

// Observe takes in what the trials' jobs say: points of their curves, and how they ended.
// Trials go in the order of their numbers.
func (s *Search) Observe(children []Child, now int64) error {
	s.children = make(map[string]Child, len(children))
	for _, child := range children {
		s.children[child.Job.Name] = child
		if t := s.live[trialNumber(child.Job)]; t != nil && t.State == cluster.TrialPaused && t.Job == child.Job.Name {
			s.remember(t, child)
		}
	}
	if s.template == nil {
		return nil
	}
	for _, number := range s.numbers() {
		t := s.live[number]
		if t.State != cluster.TrialRunning {
			continue
		}
		child, exists := s.children[t.Job]
		if !exists {
			if err := s.end(t, ending{state: cluster.TrialFailed, reason: fmt.Sprintf("its job %s was deleted", t.Job)}, now); err != nil {
				return err
			}
			continue
		}
		if err := s.observe(t, child, now); err != nil {
			return err
		}
	}
	return nil
}

// remember keeps what the job of a paused trial has said. The job may come to its last step
// while it is being stopped: then its checkpoint has all steps, and the job that goes on from
// that says nothing more.
func (s *Search) remember(t *cluster.Trial, child Child) {
	values, limits, missing := s.pick(see(child).metrics)
	if len(missing) > 0 || s.sane(ending{state: cluster.TrialComplete, values: values, limits: limits}).state != cluster.TrialComplete {
		return
	}
	if !slices.Equal(values, t.Values) || !slices.Equal(limits, t.Limits) {
		t.Values, t.Limits = values, limits
		s.touch(t)
	}
}

// observe takes in the new points of a trial's curve, one after the other, and its end.
func (s *Search) observe(t *cluster.Trial, child Child, now int64) error {
	seen := see(child)
	for _, point := range seen.curve {
		if last, known := s.lastPoint(t); known && point.Step <= last.step {
			continue
		}
		verdict, err := s.report(t, point.Step, point.Value)
		if err != nil {
			return err
		}
		if child.Job.State.Ended() || child.Job.State == cluster.JobPublishing {
			continue // there is nothing left to spare
		}
		if err := s.obey(t, verdict, now); err != nil || t.State != cluster.TrialRunning {
			return err
		}
	}
	if !child.Job.State.Ended() {
		return nil
	}
	return s.conclude(t, child, seen, now)
}

// conclude ends a trial whose job has ended.
func (s *Search) conclude(t *cluster.Trial, child Child, seen sight, now int64) error {
	if child.Job.Started != 0 && t.Runs == 1 {
		t.Started = child.Job.Started
	}
	t.Failures = child.Job.Failures
	e := ending{reason: child.Job.Reason}
	switch child.Job.State {
	case cluster.JobSucceeded:
		values, limits, missing := s.pick(seen.metrics)
		if len(seen.metrics) == 0 && len(t.Values) > 0 {
			values, limits, missing = t.Values, t.Limits, nil // of the run before
		}
		e = s.sane(ending{state: cluster.TrialComplete, values: values, limits: limits})
		if len(missing) > 0 {
			e = ending{state: cluster.TrialFailed, reason: fmt.Sprintf("it ended without a finite value of %s; it told %s", strings.Join(missing, ", "), said(seen.metrics))}
		}
		if child.Publication != nil && len(child.Publication.Outputs) > 0 {
			t.Model = child.Publication.Outputs[0].URI
		}
	case cluster.JobCancelled:
		e.state = cluster.TrialCancelled
	default:
		e.state = cluster.TrialFailed
	}
	return s.end(t, e, now)
}

func said(metrics map[string]float64) string {
	if len(metrics) == 0 {
		return "no metrics at all"
	}
	names := slices.Sorted(maps.Keys(metrics))
	if len(names) > 8 {
		names = append(names[:8], "…")
	}
	return strings.Join(names, ", ")
}

// sight is what is known of a trial's work.
type sight struct {
	metrics map[string]float64
	curve   []cluster.CurvePoint
}

// see gathers what the tasks of a job have said: the newest attempt first, since one that
// goes on from a checkpoint of the last step says nothing more. Where attempts have said the
// same step, the first has been heard.
func see(child Child) sight {
	tasks := slices.Clone(child.Tasks)
	slices.SortFunc(tasks, func(a, b cluster.Task) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), cmp.Compare(a.Role, b.Role), cmp.Compare(a.Index, b.Index))
	})
	seen := sight{metrics: map[string]float64{}}
	for _, task := range tasks {
		for name, value := range task.Status.Progress.Metrics {
			if _, known := seen.metrics[name]; !known {
				seen.metrics[name] = value
			}
		}
		seen.curve = append(seen.curve, task.Status.Progress.Curve...)
	}
	slices.SortStableFunc(seen.curve, func(a, b cluster.CurvePoint) int { return cmp.Compare(a.Step, b.Step) })
	return seen
}

// cost is what a job has cost so far: cores and GPUs of its tasks for the time that they had
// them.
func (s *Search) cost(child Child, now int64) float64 {
	total := 0.0
	for _, task := range child.Tasks {
		end := task.Status.Ended
		if !task.Status.State.Ended() || end == 0 {
			end = now
		}
		hours := time.Duration(max(end-task.Assigned, 0)).Hours()
		total += hours * s.rate(task)
	}
	return total
}

func (s *Search) rate(task cluster.Task) float64 {
	r := task.Allocation.Resources
	return float64(r.MilliCPU)/1000*s.spec.Prices.CoreHour + r.GPUs()*s.spec.Prices.GPUHour
}

// charge adds to a trial what its job has cost, once the trial is done with it.
func (s *Search) charge(t *cluster.Trial, now int64) {
	if child, exists := s.children[t.Job]; exists && t.State == cluster.TrialRunning {
		t.Cost += s.cost(child, now)
	}
}

// costNow is what all trials have cost, with those that live.
func (s *Search) costNow(now int64) float64 {
	total := s.sweep.Cost
	for _, t := range s.live {
		total += t.Cost // of earlier runs
	}
	for _, child := range s.children {
		if s.lives(child) {
			total += s.cost(child, now)
		}
	}
	return total
}

// costRate is what an hour costs as things are.
func (s *Search) costRate() float64 {
	rate := 0.0
	for _, child := range s.children {
		if !s.lives(child) {
			continue
		}
		for _, task := range child.Tasks {
			if !task.Status.State.Ended() {
				rate += s.rate(task)
			}
		}
	}
	return rate
}

// lives reports whether a job runs a live trial now.
func (s *Search) lives(child Child) bool {
	t := s.live[trialNumber(child.Job)]
	return t != nil && t.State == cluster.TrialRunning && t.Job == child.Job.Name
}

// lingering is how many jobs are on their way to their end, and still hold their places.
func (s *Search) lingering() int64 {
	n := int64(0)
	for _, child := range s.children {
		if !child.Job.State.Ended() && !s.lives(child) {
			n++
		}
	}
	return n
}

// trialNumber is the trial that a job was made for; -1 if it does not say.
func trialNumber(job cluster.Job) int64 {
	number, err := strconv.ParseInt(job.Labels[LabelTrial], 10, 64)
	if err != nil {
		return -1
	}
	return number
}

// Fill begins trials as long as there is room for them, at most so many at once. more says
// that there may be others. taken reports whether a job's name is.
func (s *Search) Fill(atOnce int, taken func(string) bool, now int64) (more bool, err error) {
	if s.template == nil {
		return false, nil
	}
	for begun := 0; ; begun++ {
		if begun == atOnce {
			return true, nil
		}
		t, why, err := s.next(now, true)
		if err != nil {
			return false, err
		}
		if t == nil {
			return why.later, nil
		}
		filled, problems := s.template.fill(s.space.Values(t.Config), t.Checkpoints, jobName(t.Sweep, t.Number, 1))
		if err := s.start(t, now); err != nil {
			return false, err
		}
		if len(problems) > 0 {
			reason := strings.ReplaceAll(problems.Error(), "\n", "; ")
			if err := s.end(t, ending{state: cluster.TrialInfeasible, reason: "its configuration makes no job: " + reason}, now); err != nil {
				return false, err
			}
			continue
		}
		t.Job = s.childName(t, taken)
		t.Worker, t.Request = "", ""
		s.touch(t)
		s.unsaved.make = append(s.unsaved.make, s.child(*t, filled, now))
	}
}

// childName is a free name for a trial's next job.
func (s *Search) childName(t *cluster.Trial, taken func(string) bool) string {
	for ; ; t.Runs++ {
		if name := jobName(t.Sweep, t.Number, t.Runs); !taken(name) {
			return name
		}
	}
}

func jobName(sweep string, number int64, run int32) string {
	if run > 1 {
		return fmt.Sprintf("%s-t%d-%d", sweep, number, run)
	}
	return fmt.Sprintf("%s-t%d", sweep, number)
}

// JobsOf are the names of the jobs that were made for a trial.
func JobsOf(t cluster.Trial) []string {
	if t.Job == "" {
		return nil
	}
	var names []string
	for run := range t.Runs {
		names = append(names, jobName(t.Sweep, t.Number, run+1))
	}
	return names
}

var jobNames = regexp.MustCompile(`^(.+)-t(0|[1-9][0-9]{0,8})(-[0-9]+)?$`)

// TrialNamed is the trial whose job would have a name, if it is such a name.
func TrialNamed(job string) (sweep string, number int64, ok bool) {
	parts := jobNames.FindStringSubmatch(job)
	if parts == nil {
		return "", 0, false
	}
	number, err := strconv.ParseInt(parts[2], 10, 64)
	return parts[1], number, err == nil
}

// child is the job of a trial.
func (s *Search) child(t cluster.Trial, spec []byte, now int64) cluster.Job {
	labels := maps.Clone(s.job.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelSweep], labels[LabelTrial] = s.job.Name, strconv.FormatInt(t.Number, 10)
	return cluster.Job{
		Name: t.Job, Kind: cluster.KindTraining, Owner: s.job.Owner, Queue: s.job.Queue, Priority: s.job.Priority, NonPreemptible: s.job.NonPreemptible,
		Labels: labels, Spec: spec, Parent: s.job.Name, MaxRuntime: s.spec.TrialRuntime.Std(),
		Retry: s.job.Retry, State: cluster.JobQueued, Attempt: 1, Submitted: now, Models: s.job.Models,
	}
}

// keptFailures is how many jobs of failed trials stay, with their logs.
const keptFailures = 8

// Tidy says what becomes of jobs that no live trial needs: those that run are cancelled,
// those that have ended deleted, but for some that have failed.
func (s *Search) Tidy() (cancelled, deleted []cluster.Job) {
	kept := 0
	for _, name := range slices.Sorted(maps.Keys(s.children)) {
		child := s.children[name]
		if s.lives(child) {
			continue
		}
		job := child.Job
		switch {
		case !job.State.Ended() && !job.Cancel:
			job.Cancel, job.Reason = true, "its trial has ended"
			cancelled = append(cancelled, job)
		case job.State == cluster.JobFailed && kept < keptFailures:
			kept++
		case job.State.Ended():
			deleted = append(deleted, job)
		}
	}
	return cancelled, deleted
}
