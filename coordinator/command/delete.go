package command

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

func (w *recording) delete(key Key, expected uint64) error {
	var current uint64
	switch key.Kind {
	case state.KindJob:
		job, _ := w.Job(key.ID)
		current = job.Revision
	case state.KindGang:
		gang, _ := w.Gang(key.ID)
		current = gang.Revision
	case state.KindQueue:
		queue, _ := w.Queue(key.ID)
		current = queue.Revision
	case state.KindToken:
		token, _ := w.Token(key.ID)
		current = token.Revision
	case state.KindSecret:
		secret, _ := w.Secret(key.ID)
		current = secret.Revision
	default:
		return fault.New(fault.Invalid, "delete %s %q: a record deletes jobs, gangs, queues, tokens and secrets only",
			cluster.Clip(string(key.Kind)), cluster.Clip(key.ID))
	}
	if current == 0 {
		return fault.New(fault.NotFound, "%s %q does not exist", key.Kind, cluster.Clip(key.ID))
	}
	if err := w.expect(key.Kind, key.ID, expected, current); err != nil {
		return err
	}
	switch key.Kind {
	case state.KindJob:
		return w.deleteJob(key.ID)
	case state.KindGang:
		return w.deleteGang(key.ID)
	case state.KindQueue:
		return w.deleteQueue(key.ID)
	case state.KindSecret:
		w.DeleteSecret(key.ID)
		return nil
	}
	w.DeleteToken(key.ID)
	return nil
}

// deleteJob takes the job's gangs, tasks and publication with it.
func (w *recording) deleteJob(name string) error {
	if job, _ := w.Job(name); !job.State.Ended() {
		return fault.New(fault.Conflict, "job %q is %s: cancel it, and delete it when it has ended", name, job.State)
	}
	for gang := range w.GangsOf(name) {
		if err := w.dropTasks(gang); err != nil {
			return err
		}
		w.DeleteGang(gang.ID())
	}
	w.DeletePublication(name)
	w.DeleteJob(name)
	return nil
}

// deleteGang is for what outlives its use. A gang of a job that goes on must stay: were
// it made anew, it would count its attempts from 1 again, and they tell stale tasks apart.
func (w *recording) deleteGang(id string) error {
	gang, _ := w.Gang(id)
	if job, exists := w.Job(gang.Job); exists && !job.State.Ended() {
		return fault.New(fault.Conflict, "gang %q: its job is %s: only gangs of ended jobs are deleted", id, job.State)
	}
	if err := w.dropTasks(gang); err != nil {
		return err
	}
	w.DeleteGang(id)
	return nil
}

func (w *recording) dropTasks(gang cluster.Gang) error {
	for task := range w.TasksOfGang(gang.ID()) {
		if !task.Status.State.Ended() {
			return fault.New(fault.Conflict, "gang %q: its task %s is %s: it can be deleted when all have ended",
				gang.ID(), task.ID, task.Status.State)
		}
		w.DeleteTask(task.ID)
	}
	return nil
}

// deleteQueue looks at every job: a queue is rarely deleted, and needs no index.
func (w *recording) deleteQueue(name string) error {
	if name == cluster.DefaultQueue {
		return fault.New(fault.Invalid, "queue %q: jobs that name no queue need it: it cannot be deleted", name)
	}
	for queue := range w.Queues() {
		if queue.Parent == name {
			return fault.New(fault.Conflict, "queue %q: queue %q is below it: delete that first", name, queue.Name)
		}
	}
	for job := range w.Jobs("") {
		if job.Queue == name {
			return fault.New(fault.Conflict, "queue %q: job %q is in it: delete that first", name, job.Name)
		}
	}
	for secret := range w.SecretsOf(name) {
		return fault.New(fault.Conflict, "queue %q: secret %q is in it: delete that first", name, secret.Name)
	}
	for gang := range w.Gangs() {
		if gang.Queue == name {
			return fault.New(fault.Conflict, "queue %q: gang %q is in it: delete its job first", name, gang.ID())
		}
	}
	w.DeleteQueue(name)
	return nil
}
