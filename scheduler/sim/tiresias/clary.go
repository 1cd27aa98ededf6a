package tiresias

import (
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim/rig"
)

// runClary plays a workload with Clary's own scheduler, asked at the same ticks. It knows of a job what production
// does: its size, when it came, what it is called, how many of its epochs are done, and what became of others.
func runClary(jobs []Job, profiles Profiles) (Result, error) {
	told := make([]rig.Job, len(jobs))
	for i, job := range jobs {
		told[i] = rig.Job{Name: job.Name, GPUs: int32(job.Replicas), Submit: job.Submit}
	}
	w := newWorld(jobs, profiles)
	if w.last >= rig.MaxSeconds-patience {
		return Result{}, fault.New(fault.Invalid, "policy clary plays no jobs that come after second %d", int64(rig.MaxSeconds-patience))
	}
	// A task for each node, as torchrun and the like start them.
	p := &production{rig: rig.New(told, rig.Setting{GPUs: Nodes * GPUsPerNode, PerNode: GPUsPerNode, PerTask: GPUsPerNode, Restart: Restart})}
	return w.play(p)
}

// production is Clary's scheduler as a policy.
type production struct {
	rig    *rig.Cluster
	failed error
}

func (p *production) choose(w *world) error {
	for i := range w.jobs {
		j := &w.jobs[i]
		switch {
		case j.told == untold && j.Submit <= w.now:
			p.rig.Submit(i)
			j.told = submitted
		case j.told == submitted && j.ended > 0:
			p.rig.Finish(i, j.work().Ran)
			j.told = finished
		case j.told == submitted && len(j.held) > 0:
			p.rig.Report(i, w.now, j.work())
		}
	}
	p.rig.Plan(w.now, func(place int) rig.Work {
		j := &w.jobs[place]
		j.stop()
		return j.work()
	}, func(s rig.Start) {
		on := make([]held, len(s.GPUs))
		for i, gpus := range s.GPUs {
			on[i] = held{gpus: gpus}
		}
		if err := w.jobs[s.Place].start(on); err != nil && p.failed == nil {
			p.failed = err
		}
	})
	return p.failed
}

// work is what a job reports.
func (j *job) work() rig.Work {
	loaded := int64(j.starts) * Restart
	if len(j.held) > 0 {
		loaded -= j.loading
	}
	return rig.Work{Ran: max(0, j.ran-loaded), Done: int64(j.epoch), Total: int64(j.app.Epochs)}
}
