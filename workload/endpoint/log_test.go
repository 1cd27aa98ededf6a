package endpoint_test

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload"
)

// apply does what the log would, all or nothing, and says why if it refuses.
func (w *world) apply(c workload.Changes) string {
	w.last = c
	if c.Empty() {
		return ""
	}
	before := w.view()
	job, e, gangs, tasks := w.job, w.e, maps.Clone(w.gangs), maps.Clone(w.tasks)
	w.clock++
	why := ""
	refuse := func(format string, args ...any) string {
		w.job, w.e, w.gangs, w.tasks = job, e, gangs, tasks
		return fmt.Sprintf(format, args...)
	}
	if c.Job != nil {
		if why = w.putJob(*c.Job); why != "" {
			return refuse("%s", why)
		}
	}
	if c.Endpoint != nil {
		if why = w.putEndpoint(*c.Endpoint); why != "" {
			return refuse("%s", why)
		}
	}
	for _, g := range c.Gangs {
		if why = w.putGang(g, e); why != "" {
			return refuse("gang %s: %s", g.Name, why)
		}
	}
	for _, g := range c.Delete {
		if why = w.deleteGang(g); why != "" {
			return refuse("delete %s: %s", g.Name, why)
		}
	}
	if why = w.whole(e); why != "" {
		return refuse("%s", why)
	}
	for _, g := range c.Gangs { // only now: what is refused leaves no trace
		w.names[g.Name] = true
	}
	w.count(c)
	if !w.raced { // what happened since it was asked is not its doing
		w.judge(before, c)
	}
	return ""
}

func (w *world) putJob(job cluster.Job) string {
	switch err := job.Validate().Err(); {
	case err != nil:
		return err.Error()
	case w.job.State.Ended():
		return "a job that has ended is changed"
	case job.State != w.job.State && !w.job.State.CanBecome(job.State):
		return fmt.Sprintf("the job goes from %s to %s", w.job.State, job.State)
	case w.e != nil && (!bytes.Equal(job.Spec, w.job.Spec) || !reflect.DeepEqual(job.Models, w.job.Models)):
		return "the job's spec or models change"
	}
	w.job = job
	w.job.Revision = w.clock
	return ""
}

func (w *world) putEndpoint(e cluster.Endpoint) string {
	if err := e.Validate().Err(); err != nil {
		return err.Error()
	}
	if w.e != nil {
		if why := w.mayBecome(*w.e, e); why != "" {
			return why
		}
	}
	e.Revision = w.clock
	w.e = &e
	return ""
}

func (w *world) mayBecome(old, e cluster.Endpoint) string {
	if e.Revision != old.Revision || e.Last < old.Last {
		return fmt.Sprintf("the endpoint is at revision %d, not %d; the last generation was %d", old.Revision, e.Revision, old.Last)
	}
	if was, is := old.Rollout, e.Rollout; is != nil {
		switch {
		case was == nil || was.To != is.To:
			if is.Phase != cluster.RolloutStarting || is.To <= old.Last {
				return "a rollout begins in the middle, or a generation is given twice"
			}
		case was.Phase != is.Phase && !was.Phase.CanBecome(is.Phase):
			return fmt.Sprintf("a rollout goes from %s to %s", was.Phase, is.Phase)
		}
	}
	for _, f := range e.Fleets {
		at := old.Fleet(f.ID())
		if at < 0 {
			if f.Generation <= old.Last {
				return "a fleet of an old generation is made"
			}
			continue
		}
		was := old.Fleets[at]
		if f.Next < was.Next || was.Retired && !f.Retired || !reflect.DeepEqual(f.Role, was.Role) {
			return fmt.Sprintf("fleet %s goes back, or changes its role", f.ID())
		}
	}
	return ""
}

func (w *world) putGang(g cluster.Gang, had *cluster.Endpoint) string {
	if err := g.Validate().Err(); err != nil {
		return err.Error()
	}
	old, existed := w.gangs[g.Name]
	if g.Revision != old.Revision {
		return fmt.Sprintf("it is at revision %d, not %d", old.Revision, g.Revision)
	}
	only := old
	only.Stop, only.StopReason, only.Moves = g.Stop, g.StopReason, g.Moves
	if w.job.State.Ended() || (w.job.Cancel || w.job.State == cluster.JobStopping) && !(g.Stop && reflect.DeepEqual(only, g)) {
		return "the job is to end: no more than its stop may change"
	}
	if existed {
		task, placed := w.task(old)
		switch {
		case g.Attempt == old.Attempt && old.Stop && !g.Stop:
			return "a stop is taken back"
		case g.Attempt == old.Attempt+1 && placed && !task.Status.State.Ended():
			return "the next attempt begins while a task of the last is " + string(task.Status.State)
		case g.Attempt != old.Attempt && g.Attempt != old.Attempt+1:
			return "an attempt is left out"
		}
	} else {
		fleet, number, _ := cluster.ReplicaOf(g.Name)
		at := w.e.Fleet(fleet)
		if at < 0 || w.names[g.Name] || g.Attempt != 1 {
			return "it is of no fleet, or was there before"
		}
		first := int32(0)
		if had != nil && had.Fleet(fleet) >= 0 {
			first = had.Fleets[had.Fleet(fleet)].Next
		}
		if f := w.e.Fleets[at]; number < first || number >= f.Next || len(g.Roles) != 1 || !reflect.DeepEqual(g.Roles[0], f.Role) {
			return "it is not counted by its fleet, or is something else"
		}
	}
	g.Revision = w.clock
	w.gangs[g.Name] = g
	return ""
}

func (w *world) deleteGang(g cluster.Gang) string {
	old, existed := w.gangs[g.Name]
	if !existed || old.Revision != g.Revision {
		return "it is not there as it was read"
	}
	for id, task := range w.tasks {
		if task.Gang != g.ID() {
			continue
		}
		if !task.Status.State.Ended() {
			return fmt.Sprintf("its task is %s", task.Status.State)
		}
		delete(w.tasks, id)
	}
	delete(w.gangs, g.Name)
	return ""
}

// whole holds the endpoint against its job and its replicas.
func (w *world) whole(had *cluster.Endpoint) string {
	if w.job.State.Ended() && w.e != nil && len(w.e.Fleets) > 0 {
		return "the job ends before its fleets"
	}
	if had == nil || w.e == nil {
		return ""
	}
	for name := range w.gangs {
		if fleet, _, _ := cluster.ReplicaOf(name); w.e.Fleet(fleet) < 0 {
			return "fleet " + fleet + " is gone, and " + name + " is not"
		}
	}
	return ""
}
