package command

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

func (w *recording) delete(key Key, expected uint64) error {
	current, may := w.revision(key)
	if !may {
		return fault.New(fault.Invalid, "delete %s %q: a record deletes jobs, gangs, queues, archived jobs, tokens, secrets, sweeps, trials, models and versions only",
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
	case state.KindArchived:
		w.DeleteArchived(key.ID)
		return nil
	case state.KindGang:
		return w.deleteGang(key.ID)
	case state.KindQueue:
		return w.deleteQueue(key.ID)
	case state.KindSecret:
		w.DeleteSecret(key.ID)
		return nil
	case state.KindSweep:
		return w.deleteSweep(key.ID)
	case state.KindTrial:
		return w.deleteTrial(key.ID)
	case state.KindModel:
		return w.deleteModel(key.ID)
	case state.KindVersion:
		return w.deleteVersion(key.ID)
	}
	w.DeleteToken(key.ID)
	return nil
}

// revision is that of a noun which may be named by its key, 0 if there is none.
func (w *recording) revision(key Key) (current uint64, may bool) {
	switch key.Kind {
	case state.KindJob:
		job, _ := w.Job(key.ID)
		return job.Revision, true
	case state.KindArchived:
		archived, _ := w.Archived(key.ID)
		return archived.Revision, true
	case state.KindGang:
		gang, _ := w.Gang(key.ID)
		return gang.Revision, true
	case state.KindQueue:
		queue, _ := w.Queue(key.ID)
		return queue.Revision, true
	case state.KindToken:
		token, _ := w.Token(key.ID)
		return token.Revision, true
	case state.KindSecret:
		secret, _ := w.Secret(key.ID)
		return secret.Revision, true
	case state.KindSweep:
		sweep, _ := w.Sweep(key.ID)
		return sweep.Revision, true
	case state.KindTrial:
		trial, _ := w.Trial(key.ID)
		return trial.Revision, true
	case state.KindModel:
		model, _ := w.Model(key.ID)
		return model.Revision, true
	case state.KindVersion:
		version, _ := w.ModelVersion(key.ID)
		return version.Revision, true
	}
	return 0, false
}

// deleteJob takes the job's gangs, tasks, publication and endpoint with it.
func (w *recording) deleteJob(name string) error {
	if job, _ := w.Job(name); !job.State.Ended() {
		return fault.New(fault.Conflict, "job %q is %s: cancel it, and delete it when it has ended", name, job.State)
	}
	if w.HasSweep(name) {
		return fault.New(fault.Conflict, "job %q has a sweep: delete that and its trials first", name)
	}
	for trial := range w.TrialsOf(name, 0) {
		return fault.New(fault.Conflict, "job %q has a trial %d: delete its trials first", name, trial.Number)
	}
	for child := range w.ChildrenOf(name) {
		return fault.New(fault.Conflict, "job %q has made job %q: delete that first", name, child.Name)
	}
	for gang := range w.GangsOf(name) {
		if err := w.dropTasks(gang); err != nil {
			return err
		}
		w.DeleteGang(gang.ID())
	}
	w.DeleteEndpoint(name)
	w.DeletePublication(name)
	w.DeleteJob(name)
	return nil
}

// deleteGang is for what outlives its use. A gang of a job that goes on must stay: were
// it made anew, it would count its attempts from 1 again, and they tell stale tasks apart. No
// replica of an endpoint is ever made anew.
func (w *recording) deleteGang(id string) error {
	gang, _ := w.Gang(id)
	if job, exists := w.Job(gang.Job); exists && !job.State.Ended() && job.Kind != cluster.KindEndpoint {
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
