package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
)

// recoverPatience is for the engine to tell of tasks that there are: an agent begins without
// one that does not answer.
const recoverPatience = 5 * time.Second

// Recover reads which tasks there are, from their folders: the engine may be away. What
// the engine has of this agent's without a folder is removed behind its back.
func (d *Driver) Recover(ctx context.Context) ([]runtime.Found, error) {
	items, err := os.ReadDir(d.config.Root)
	if err != nil {
		return nil, fault.New(fault.Internal, "recover tasks: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, recoverPatience)
	defer cancel()
	var found []runtime.Found
	for _, item := range items {
		dir := filepath.Join(d.config.Root, item.Name())
		var n note
		if err := readNote(dir, &n); errors.Is(err, os.ErrNotExist) || !item.IsDir() {
			continue
		} else if err != nil { // without it, its container would be nobody's
			return nil, fault.New(fault.Internal, "recover task %s: %w", runtime.TaskID(item.Name()), err)
		}
		h := &handle{id: runtime.TaskID(item.Name()), dir: dir, name: n.Container, note: n, started: n.Created, before: true}
		if n.Exit != nil {
			found = append(found, d.adopt(h))
			continue
		}
		state, err := d.state(ctx, h.name)
		if err == nil && state.never && !d.mayHaveRun(state.id) && os.Remove(filepath.Join(dir, noteFile)) == nil {
			// The agent died before the container was started: the task may begin again. What
			// cannot be removed now is when it does, or by the sweep.
			_ = d.discard(ctx, h.name)
			continue
		}
		if err == nil && !state.exit.Started.IsZero() {
			h.started = state.exit.Started
		}
		d.follow(h)
		found = append(found, runtime.Found{ID: h.id, Started: h.started, Running: err != nil && !fault.Is(err, fault.NotFound) || err == nil && state.running})
	}
	d.running.Go(func() {
		for wait := askAgain; !d.sweep(d.ctx) && d.ctx.Err() == nil; wait = min(2*wait, time.Minute) {
			pause(d.ctx, wait)
		}
	})
	return found, nil
}

// adopt makes a task known of which an earlier agent wrote down how it ended.
func (d *Driver) adopt(h *handle) runtime.Found {
	h.exit, h.done = *h.note.Exit, make(chan struct{})
	close(h.done)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tasks[h.id] = h
	return runtime.Found{ID: h.id, Started: h.exit.Started}
}

// sweep removes containers of tasks that have no folder any more; false if it must be done
// again.
func (d *Driver) sweep(ctx context.Context) bool {
	filters := moby.Filters{}.Add("label", labelAgent+"="+d.agent)
	list, err := d.engine.ContainerList(ctx, moby.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return false
	}
	all := true
	for _, item := range list.Items {
		if d.knows(item.Labels[labelTask]) {
			continue
		}
		if err := d.sweepOne(ctx, item.ID, item.Labels[labelTask]); err != nil && ctx.Err() == nil {
			d.config.Log.Warn("remove a container", "container", item.ID, "error", err)
			all = false
		}
	}
	return all
}

func (d *Driver) sweepOne(ctx context.Context, container, task string) error {
	leave, err := d.turns.enter(ctx, task)
	if err != nil {
		return err
	}
	defer leave()
	if d.knows(task) { // by now
		return nil
	}
	d.config.Log.Info("a container is removed whose task is not known", "container", container, "task", task)
	return d.discard(ctx, container)
}
