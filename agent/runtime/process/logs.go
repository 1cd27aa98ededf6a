package process

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// Logs gives what the query wants of the task's journal.
func (d *Driver) Logs(ctx context.Context, id string, query journal.Query, sink journal.Sink) error {
	h, err := d.find(id)
	if err != nil {
		return err
	}
	err = journal.Read(ctx, filepath.Join(h.dir, shim.LogFile), query, h.done, sink)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "the log of task %s is not on this node", id)
	case err == nil && query.Follow && h.ended():
		return h.err // the driver was closed, and the task runs on
	}
	return err
}

// DropLog deletes the journal of an ended task.
func (d *Driver) DropLog(id string) error {
	h, err := d.find(id)
	switch {
	case fault.Is(err, fault.NotFound):
		return nil
	case !h.ended():
		return fault.New(fault.Conflict, "task %s still runs, and writes its log", id)
	case h.err != nil:
		return h.err // who knows whether it still runs
	}
	return journal.Remove(filepath.Join(h.dir, shim.LogFile))
}
