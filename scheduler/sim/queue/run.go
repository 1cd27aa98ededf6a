package queue

import (
	"cmp"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim"
)

// Policy orders the jobs of a run.
type Policy string

// The policies. Only srtf and srsf know how long a job will take.
const (
	FIFO     Policy = "fifo"      // in order of arrival; the first that does not fit holds up all behind it
	FIFOSkip Policy = "fifo-skip" // in order of arrival; who does not fit is passed over
	SRTF     Policy = "srtf"      // shortest remaining time first, preemptive
	SRSF     Policy = "srsf"      // shortest remaining service (time x GPUs) first, preemptive
	Clary    Policy = "clary"     // Clary's own scheduler, with a queue whose order is shortest
)

// Policies lists what Run plays.
func Policies() []Policy { return []Policy{FIFO, FIFOSkip, SRTF, SRSF, Clary} }

// Span is when a job started first, and when it ended.
type Span struct{ Start, End int64 }

// Result of a run: a span for each job, in the order of the jobs.
type Result struct {
	Spans    []Span
	Restarts int // how often a job was started again after it had been stopped
	Summary  sim.Summary
}

// Run plays jobs, which Read has checked, on a number of GPUs. Each start costs so many seconds during which the job
// does no work: 0 in the reference.
func Run(jobs []Job, gpus int64, policy Policy, restart int64) (Result, error) {
	if !slices.Contains(Policies(), policy) {
		return Result{}, fault.New(fault.Invalid, "policy: %q is unknown: one of %v", policy, Policies())
	}
	if restart < 0 || restart > MaxRestart {
		return Result{}, fault.New(fault.Invalid, "restart: %d s is out of range: from 0 to %d", restart, MaxRestart)
	}
	if policy == Clary {
		return runClary(jobs, gpus, restart)
	}
	r := newRun(jobs, gpus)
	r.restart = restart
	for {
		now, events, more := r.events.Next()
		if !more {
			break
		}
		r.advance(now)
		if !r.note(events) {
			continue
		}
		switch policy {
		case FIFO, FIFOSkip:
			r.fill(policy == FIFOSkip)
		case SRTF:
			r.reorder(func(j *job) int64 { return j.left })
		case SRSF:
			r.reorder(func(j *job) int64 { return j.left * j.GPUs })
		}
	}
	return r.result(), nil
}

// MaxRestart is the most that a start may cost, in seconds.
const MaxRestart = 24 * 3600

// run is the state of the cluster. A job is runnable from its arrival to its end.
type run struct {
	jobs     []job
	free     int64
	now      int64
	events   sim.Events[event]
	runnable []*job
	restart  int64 // what a start costs
	restarts int
	asks     int64 // when Clary's scheduler wants to be asked
}

type job struct {
	Job
	place   int   // in the trace
	left    int64 // seconds of work
	loading int64 // seconds before it works
	running bool
	started bool
	turn    int // fences the end that was foreseen before the job was stopped
	span    Span
}

// event is an arrival (turn 0) or the end of a job's turn; of no job (-1) it is that the scheduler wants to be asked.
type event struct{ job, turn int }

func newRun(jobs []Job, gpus int64) *run {
	r := &run{jobs: make([]job, len(jobs)), free: gpus}
	for i, j := range jobs {
		r.jobs[i] = job{Job: j, place: i, left: j.Duration}
		r.events.At(j.Submit, event{job: i})
	}
	return r
}

// advance lets what runs do its work until now.
func (r *run) advance(now int64) {
	for _, j := range r.runnable {
		if j.running {
			loading := min(j.loading, now-r.now)
			j.loading -= loading
			j.left -= now - r.now - loading
		}
	}
	r.now = now
}

// note takes ends and arrivals in; it reports whether there were any.
func (r *run) note(events []event) (news bool) {
	for _, e := range events {
		j := &r.jobs[max(0, e.job)]
		switch {
		case e.job < 0:
		case e.turn == 0:
			news = true
			r.runnable = append(r.runnable, j)
		case e.turn == j.turn && j.running:
			news = true
			j.running, j.span.End = false, r.now
			r.free += j.GPUs
			r.runnable = slices.DeleteFunc(r.runnable, func(other *job) bool { return other == j })
		}
	}
	return news
}

// fill starts waiting jobs in order of arrival.
func (r *run) fill(skip bool) {
	for i := range r.runnable {
		j := r.runnable[i]
		switch {
		case j.running:
		case j.GPUs <= r.free:
			r.start(j)
		case !skip:
			return
		}
	}
}

// reorder sorts what may run, equal ones as they stood, and gives the GPUs to the first
// of them, passing over who does not fit.
func (r *run) reorder(key func(*job) int64) {
	slices.SortStableFunc(r.runnable, func(a, b *job) int { return cmp.Compare(key(a), key(b)) })
	room := r.free
	for _, j := range r.runnable {
		if j.running {
			room += j.GPUs
		}
	}
	var chosen []*job
	for _, j := range r.runnable {
		if j.GPUs <= room {
			room -= j.GPUs
			chosen = append(chosen, j)
		} else if j.running {
			r.stop(j)
		}
	}
	for _, j := range chosen {
		if !j.running {
			r.start(j)
		}
	}
}

func (r *run) stop(j *job) {
	j.running, j.loading = false, 0
	r.free += j.GPUs
}

func (r *run) start(j *job) {
	j.running, j.loading = true, r.restart
	j.turn++
	r.free -= j.GPUs
	if j.started {
		r.restarts++
	} else {
		j.started, j.span.Start = true, r.now
	}
	r.events.At(r.now+j.loading+j.left, event{j.place, j.turn})
}

func (r *run) result() Result {
	result := Result{Restarts: r.restarts}
	var submitted, ended []int64
	for i := range r.jobs {
		result.Spans = append(result.Spans, r.jobs[i].span)
		submitted, ended = append(submitted, r.jobs[i].Submit), append(ended, r.jobs[i].span.End)
	}
	result.Summary = sim.Summarize(submitted, ended)
	return result
}
