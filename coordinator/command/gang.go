package command

import (
	"reflect"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// keepAttempts is how many attempts of a gang keep their tasks, the current one included.
const keepAttempts = 3

// gangPut is a gang that a record wrote.
type gangPut struct {
	id, job  string
	stopOnly bool // nothing but its wish to end has changed
	isNew    bool
}

func (w *recording) putGang(gang cluster.Gang, expected uint64) error {
	id := gang.ID()
	old, existed := w.Gang(id)
	if err := w.expect(state.KindGang, id, expected, old.Revision); err != nil {
		return err
	}
	if gang.Revision = old.Revision; existed && reflect.DeepEqual(gang, old) {
		return nil
	}
	if err := invalid(state.KindGang, id, gang.Validate()); err != nil {
		return err
	}
	if !w.HasQueue(gang.Queue) {
		return fault.New(fault.Invalid, "gang %q: queue: %q does not exist", id, gang.Queue)
	}
	put := gangPut{id: id, job: gang.Job, isNew: !existed}
	if !existed {
		if gang.Attempt != 1 {
			return fault.New(fault.Invalid, "gang %q: attempt: a new gang begins with 1, not %d", id, gang.Attempt)
		}
	} else {
		if err := w.checkAttempt(old, gang); err != nil {
			return err
		}
		put.stopOnly = stopsOnly(old, gang)
	}
	w.PutGang(gang)
	w.gangs = append(w.gangs, put)
	return nil
}

func stopsOnly(old, gang cluster.Gang) bool {
	old.Stop, old.StopReason, old.Moves = gang.Stop, gang.StopReason, gang.Moves
	if !gang.Moves {
		old.For = gang.For // nobody's room is made any more
	}
	return (gang.Stop || gang.Moves) && reflect.DeepEqual(old, gang)
}

// checkAttempt guards the fence: an attempt begins when nothing of the one before can
// still run for it, and its tasks are what it was placed as.
func (w *recording) checkAttempt(old, gang cluster.Gang) error {
	id := gang.ID()
	if old.Owner != gang.Owner || old.Submitted != gang.Submitted {
		return fault.New(fault.Invalid, "gang %q: owner and submitted never change", id)
	}
	switch gang.Attempt {
	case old.Attempt:
		if old.Stop && !gang.Stop {
			return fault.New(fault.Conflict, "gang %q: stop: its tasks were told to end: begin attempt %d", id, old.Attempt+1)
		}
		if !slices.Equal(old.Granted, gang.Granted) {
			return fault.New(fault.Invalid, "gang %q: granted: it is set when attempt %d is placed", id, old.Attempt)
		}
		if old.Queue != gang.Queue && w.placed(old) {
			return fault.New(fault.Conflict, "gang %q: queue: attempt %d is placed and charged to %q: it changes with the next attempt", id, old.Attempt, old.Queue)
		}
		if w.placed(old) && !reflect.DeepEqual(old.Roles, gang.Roles) {
			return fault.New(fault.Conflict, "gang %q: roles: attempt %d is placed: they change with the next attempt", id, old.Attempt)
		}
		return nil
	case old.Attempt + 1:
		if len(gang.Granted) > 0 {
			return fault.New(fault.Invalid, "gang %q: granted: it is set when attempt %d is placed", id, gang.Attempt)
		}
		return w.beginAttempt(old, gang)
	}
	return fault.New(fault.Conflict, "gang %q: attempt: after %d comes %d, not %d", id, old.Attempt, old.Attempt+1, gang.Attempt)
}

// beginAttempt deletes what is too old to be kept.
func (w *recording) beginAttempt(old, gang cluster.Gang) error {
	for task := range w.TasksOfGang(old.ID()) {
		if !task.Status.State.Ended() {
			return fault.New(fault.Conflict, "gang %q: attempt: task %s is %s: attempt %d begins when all of attempt %d have ended",
				old.ID(), task.ID, task.Status.State, gang.Attempt, old.Attempt)
		}
		if task.Attempt <= gang.Attempt-keepAttempts {
			w.DeleteTask(task.ID)
		}
	}
	return nil
}

// placed reports whether the gang's current attempt has tasks: it has all or none.
func (w *recording) placed(gang cluster.Gang) bool {
	return w.HasTask(gang.TaskID(gang.Roles[0].Name, 0))
}

// checkOwner holds a gang against its job as the record leaves it.
func (w *recording) checkOwner(put gangPut) error {
	job, exists := w.Job(put.job)
	if !exists {
		return fault.New(fault.Conflict, "gang %q: its job does not exist", put.id)
	}
	if put.stopOnly {
		return nil
	}
	if job.State.Ended() {
		return fault.New(fault.Conflict, "gang %q: its job has %s: no more than its stop may change", put.id, job.State)
	}
	if job.Cancel || job.State == cluster.JobStopping {
		return fault.New(fault.Conflict, "gang %q: its job is to end: no more than its stop may change", put.id)
	}
	if !w.named[Key{Kind: state.KindJob, ID: put.job}] {
		return fault.New(fault.Invalid, "gang %q: the record must put its job too, at the revision it was read", put.id)
	}
	if put.isNew {
		return w.checkReplica(put.id, job)
	}
	return nil
}
