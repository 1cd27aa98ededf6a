package command

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// putArchived says that a job that has ended is archived: its proposer has written its record. Once that is said the job is
// never put again, and all else of it may go.
func (w *recording) putArchived(row cluster.Archived, expected uint64) error {
	old, _ := w.Archived(row.Name)
	if err := w.expect(state.KindArchived, row.Name, expected, old.Revision); err != nil {
		return err
	}
	job, exists := w.Job(row.Name)
	row.Revision = 0
	switch {
	case !exists || !job.State.Ended():
		return fault.New(fault.Conflict, "job %q: only a job that is there and has ended is archived", cluster.Clip(row.Name))
	case job.Parent != "":
		return fault.New(fault.Invalid, "job %q is archived with job %q, which made it", job.Name, job.Parent)
	case row != job.Archive(row.At):
		return fault.New(fault.Conflict, "job %q is not the one that was read: read it again", job.Name)
	}
	w.PutArchived(row)
	return nil
}

// checkNotArchived: what an archived job left is kept under its name.
func (w *recording) checkNotArchived(name string) error {
	if _, is := w.Archived(name); is {
		return fault.New(fault.Conflict, "job %q: one of that name is archived, and what it left is kept under it: choose another name, or delete it first", name)
	}
	return nil
}
