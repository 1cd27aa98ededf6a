package queue

import (
	"cmp"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim/rig"
)

// perNode is how many GPUs a node has where Clary's scheduler, which knows nodes, is asked.
const perNode = 8

// longest is how long a trace may be, in seconds: the scheduler is asked every minute that something waits.
const longest = 10 * 365 * 86400

// maxRigged is how many GPUs Clary's scheduler is asked to fill: each is a device of its own there.
const maxRigged = 1 << 16

// runClary plays jobs with Clary's own scheduler, which knows of a job what production does: its size, when it came, what
// it is called, and what became of others. Its start costs so many seconds.
func runClary(jobs []Job, gpus, restart int64) (Result, error) {
	if gpus > maxRigged {
		return Result{}, fault.New(fault.Invalid, "gpus: policy clary plays at most %d", maxRigged)
	}
	told := make([]rig.Job, len(jobs))
	for i, job := range jobs {
		name := job.Model
		if name == "" {
			name = "job"
		}
		told[i] = rig.Job{Name: name, GPUs: int32(job.GPUs), Submit: job.Submit}
	}
	r := newRun(jobs, gpus)
	r.restart = restart
	c := rig.New(told, rig.Setting{GPUs: gpus, PerNode: perNode, PerTask: 1, Restart: restart})
	first := slices.MinFunc(jobs, func(a, b Job) int { return cmp.Compare(a.Submit, b.Submit) }).Submit
	for {
		now, events, more := r.events.Next()
		if !more {
			return r.result(), nil
		}
		if now-first > longest || now >= rig.MaxSeconds {
			return Result{}, fault.New(fault.Invalid, "policy clary plays at most 10 years, and nothing after second %d", int64(rig.MaxSeconds))
		}
		r.advance(now)
		for _, e := range events {
			switch j := &r.jobs[max(0, e.job)]; {
			case e.job < 0: // the scheduler wants to be asked
			case e.turn == 0:
				c.Submit(e.job)
			case e.turn == j.turn && j.running:
				c.Finish(e.job, j.Duration)
			}
		}
		r.note(events)
		for _, j := range r.runnable {
			if j.running {
				c.Report(j.place, now, rig.Work{})
			}
		}
		c.Plan(now, func(place int) rig.Work {
			j := &r.jobs[place]
			r.stop(j)
			return rig.Work{Ran: j.Duration - j.left}
		}, func(s rig.Start) { r.start(&r.jobs[s.Place]) })
		if at, any := c.Next(); any && (r.asks <= now || at < r.asks) {
			r.asks = at
			r.events.At(at, event{job: -1})
		}
	}
}
