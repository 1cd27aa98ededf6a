// Package tiresias replays the cluster experiment of the Pollux artifact (Qiao et al.,
// OSDI 2021) at rigid job sizes: 16 nodes of 4 GPUs, profiles of real training jobs,
// 30 s without progress at every start. Policy tiresias gives the published completion
// time of every job; clary is Clary's own scheduler on the same jobs.
package tiresias

import (
	"cmp"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/sim"
)

// Policy decides which jobs run.
type Policy string

// The policies.
const (
	// Tiresias is the published baseline: two queues by attained service (Gu et al., NSDI
	// 2019) at the job sizes that a tuner chose beforehand.
	Tiresias Policy = "tiresias"
	// Clary is Clary's own scheduler, with a queue whose order is shortest.
	Clary Policy = "clary"
)

// Policies lists what Run plays.
func Policies() []Policy { return []Policy{Tiresias, Clary} }

// Result of a run.
type Result struct {
	JCT      []int64 // seconds from submission to end, in the order of the jobs
	Restarts int     // how often a job was started again after it had been stopped
	Summary  sim.Summary
}

// Run plays a workload, which Read has checked. Time goes in ticks: all jobs advance,
// then the policy chooses among those that have come and are not over.
func Run(jobs []Job, profiles Profiles, policy Policy) (Result, error) {
	if !slices.Contains(Policies(), policy) {
		return Result{}, fault.New(fault.Invalid, "policy: %q is unknown: one of %v", policy, Policies())
	}
	if policy == Clary {
		return runClary(jobs, profiles)
	}
	return newWorld(jobs, profiles).play(&twoQueues{})
}

// chooser gives the GPUs to those that shall run from now on.
type chooser interface{ choose(w *world) error }

// play lets time go by until all jobs are over.
func (w *world) play(c chooser) (Result, error) {
	for w.left > 0 {
		now, _, _ := w.ticks.Next()
		if w.advance(now); w.left > 0 && now > w.last+patience {
			return Result{}, fault.New(fault.Invalid, "job %s is not over 10 years after the last submission", w.active[0].Name)
		}
		if err := c.choose(w); err != nil {
			return Result{}, err
		}
		w.next()
	}
	return w.result(), nil
}

// patience is how long after the last submission a run may go on, in seconds.
const patience = 10 * 365 * 86400

// world is the cluster and its jobs.
type world struct {
	now    int64
	jobs   []job
	coming []*job // not yet seen, by submission
	active []*job // seen and not over, in the order in which they were seen
	left   int
	last   int64 // submission
	free   [Nodes]int
	ticks  sim.Events[struct{}]
}

func newWorld(jobs []Job, profiles Profiles) *world {
	w := &world{jobs: make([]job, len(jobs)), left: len(jobs)}
	for i, j := range jobs {
		w.jobs[i] = job{Job: j, app: profiles[j.App]}
		w.coming = append(w.coming, &w.jobs[i])
		w.last = max(w.last, j.Submit)
	}
	slices.SortStableFunc(w.coming, func(a, b *job) int { return cmp.Compare(a.Submit, b.Submit) })
	for i := range w.free {
		w.free[i] = GPUsPerNode
	}
	w.next()
	return w
}

// next sets the next tick: the following one, or when nothing runs or waits the one that sees a job.
func (w *world) next() {
	at := w.now + Tick
	if len(w.active) == 0 && len(w.coming) > 0 {
		at = max(at, ceilDiv(w.coming[0].Submit, Tick)*Tick)
	}
	w.ticks.At(at, struct{}{})
}

// advance moves the jobs on to now: those that are over leave, those that have come are seen.
func (w *world) advance(now int64) {
	for _, j := range w.active {
		if len(j.held) > 0 {
			j.advance(w.now, now-w.now)
			j.ran += now - w.now
		}
	}
	w.now = now
	w.active = slices.DeleteFunc(w.active, func(j *job) bool {
		if j.ended > 0 {
			w.stop(j)
			w.left--
		}
		return j.ended > 0
	})
	for len(w.coming) > 0 && w.coming[0].Submit <= now {
		w.active = append(w.active, w.coming[0])
		w.coming = w.coming[1:]
	}
}

func (w *world) stop(j *job) {
	for _, h := range j.held {
		w.free[h.node] += h.gpus
	}
	j.stop()
}

// start takes GPUs from the node with most that are free, again and again.
func (w *world) start(j *job) error {
	var on []held
	for need := int(j.Replicas); need > 0; {
		most := 0
		for node, free := range w.free {
			if free > w.free[most] {
				most = node
			}
		}
		took := min(need, w.free[most])
		w.free[most] -= took
		need -= took
		on = append(on, held{most, took})
	}
	return j.start(on)
}

func (w *world) result() Result {
	var result Result
	var submitted, ended []int64
	for i := range w.jobs {
		j := &w.jobs[i]
		result.JCT = append(result.JCT, j.ended-j.Submit)
		submitted, ended = append(submitted, j.Submit), append(ended, j.ended)
		result.Restarts += j.starts - 1
	}
	result.Summary = sim.Summarize(submitted, ended)
	return result
}

// demotion is the attained service, in GPU-seconds, with which a job goes to the second queue.
const demotion = 16 * 3600

// twoQueues is Tiresias with two queues, first come first served in each.
type twoQueues struct{ queues [2][]*job }

// choose gives the GPUs to the queues in turn, passing over who does not fit.
func (q *twoQueues) choose(w *world) error {
	over := func(j *job) bool { return j.ended > 0 }
	q.queues[0], q.queues[1] = slices.DeleteFunc(q.queues[0], over), slices.DeleteFunc(q.queues[1], over)
	for _, j := range w.active {
		if j.starts == 0 && !slices.Contains(q.queues[0], j) {
			q.queues[0] = append(q.queues[0], j)
		}
	}
	q.queues[0] = slices.DeleteFunc(q.queues[0], func(j *job) bool {
		demote := j.ran*j.Replicas >= demotion
		if demote {
			q.queues[1] = append(q.queues[1], j)
		}
		return demote
	})
	room := int64(Nodes * GPUsPerNode)
	var chosen []*job
	for _, j := range slices.Concat(q.queues[0], q.queues[1]) {
		if j.Replicas <= room {
			room -= j.Replicas
			chosen = append(chosen, j)
		} else {
			w.stop(j)
		}
	}
	for _, j := range chosen {
		if len(j.held) > 0 {
			continue
		}
		if err := w.start(j); err != nil {
			return err
		}
	}
	return nil
}
