package supervisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/clary-ml/clary/agent/contract"
	"github.com/clary-ml/clary/agent/feeder"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Feeders serve inputs that are not files of a task's own, from a process that like the
// task outlives the agent. They are known by the task's folder.
type Feeders interface {
	// Start returns when all that the task will find is there. What an earlier call began
	// is ended first.
	Start(ctx context.Context, dir string, todo feeder.Instructions) error
	// Wait returns why a feeder can no longer serve, when it cannot, or when ctx ends.
	Wait(ctx context.Context, dir string) error
	// Stop ends a feeder. None is no error.
	Stop(dir string) error
	// Sweep ends those of folders below root that are not known.
	Sweep(root string, known func(folder string) bool) error
}

// share is the task's part of sharded inputs: one for each task of its role.
func share(assignment ledger.Assignment) staging.Share {
	names, _ := contract.Task{Assignment: assignment}.Hosts()
	return staging.Share{Index: int(assignment.Task.Index), Count: len(names)}
}

// fed are the inputs that a feeder serves.
func fed(program cluster.Program) []cluster.Input {
	var inputs []cluster.Input
	for _, input := range program.Inputs {
		if input.Mode != cluster.InputFile {
			inputs = append(inputs, input)
		}
	}
	return inputs
}

// shown are the folders of a feeder that a task with a view of its own sees as its
// channels.
func (t *task) shown(program cluster.Program) []runtime.Mount {
	var mounts []runtime.Mount
	for _, input := range fed(program) {
		if input.Mode == cluster.InputFastFile {
			target := staging.Folders{Base: contract.Base}.Of(input)
			mounts = append(mounts, runtime.Mount{Source: feeder.Shown(t.folder, input.Channel), Target: target, ReadOnly: true})
		}
	}
	return mounts
}

// feed starts the task's feeder, if it needs one. A task that shares the node's view finds
// a channel's folder through a link, one with a view of its own has it mounted.
func (t *task) feed(ctx context.Context, assignment ledger.Assignment, shared bool) error {
	inputs := fed(assignment.Program)
	if len(inputs) == 0 {
		return nil
	}
	if t.s.config.Feeders == nil {
		return fault.New(fault.Unready, "input %s: this node serves inputs in file mode only", inputs[0].Channel)
	}
	t.become(func(s *cluster.TaskStatus) { s.State = cluster.TaskStaging })
	for _, input := range inputs {
		if input.Mode != cluster.InputFastFile {
			continue
		}
		path := t.folders.Of(input)
		err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Dir(path), 0o755))
		if shared {
			err = errors.Join(err, os.Symlink(feeder.Shown(t.folder, input.Channel), path))
		} else {
			err = errors.Join(err, os.Mkdir(path, 0o755))
		}
		if err != nil {
			return fault.New(fault.Internal, "prepare input %s: %w", input.Channel, err)
		}
	}
	todo := t.s.config.Feed
	todo.Inputs, todo.Share, todo.Data, todo.Scratch, todo.Until = inputs, share(assignment), t.folders.Data(), t.scratch(), shim.ExitFile
	return patiently(ctx, func() error { return t.s.config.Feeders.Start(ctx, t.folder, todo) })
}

// watchFeeder tells when the running task's feeder can no longer serve; done waits for the
// watching to end.
func (t *task) watchFeeder(ctx context.Context) (starved <-chan error, done func()) {
	if t.s.config.Feeders == nil || len(fed(t.assignment().Program)) == 0 {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	told, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		if err := t.s.config.Feeders.Wait(ctx, t.folder); ctx.Err() == nil {
			told <- err
		}
	}()
	return told, func() { cancel(); <-over }
}

// starved is why the inputs of a task that nobody stopped could no longer be served, nil
// if they could or it did not matter.
func (t *task) starved(state cluster.TaskState) error {
	if isClosed(t.stop) || state != cluster.TaskStopped && state != cluster.TaskFailed {
		return nil
	}
	return feeder.Failure(t.folder)
}

// unfeed ends the task's feeder.
func (t *task) unfeed() {
	if t.s.config.Feeders == nil {
		return
	}
	if err := t.s.config.Feeders.Stop(t.folder); err != nil {
		t.s.config.Log.Warn("end a task's input feeder", "task", t.id(), "error", err)
	}
}

// sweepFeeders ends those of tasks that nobody promised.
func (s *Supervisor) sweepFeeders(known map[string]bool) {
	if s.config.Feeders == nil {
		return
	}
	if err := s.config.Feeders.Sweep(s.config.Root, func(folder string) bool { return known[filepath.Base(folder)] }); err != nil {
		s.config.Log.Warn("end input feeders of unknown tasks", "error", err)
	}
}
