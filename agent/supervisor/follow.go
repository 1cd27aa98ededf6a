package supervisor

import (
	"context"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	progressEvery   = 500 * time.Millisecond
	checkpointEvery = 2 * time.Second
)

// follow stays with a running task: it hands on the wish to stop, tells progress and
// mirrors checkpoints, until the task has ended (true) or ctx has (false).
func (t *task) follow(ctx context.Context) (runtime.Exit, bool) {
	type outcome struct {
		exit runtime.Exit
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		exit, err := t.s.config.Driver.Wait(ctx, t.id())
		ended <- outcome{exit, err}
	}()
	mirror, mirrored := t.startMirror(ctx)
	defer func() { mirror(); <-mirrored }()
	if status := t.status(); status.State != cluster.TaskRunning && status.State != cluster.TaskUploading {
		t.become(func(s *cluster.TaskStatus) { s.State = cluster.TaskRunning })
	}
	progress := newProgressReader(t.metrics())
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	stop := t.stop
	for {
		select {
		case o := <-ended:
			t.progress(progress)
			if o.err != nil && ctx.Err() == nil && !fault.Is(o.err, fault.Unready) {
				return runtime.Exit{Code: -1, Unknown: true, Ended: time.Now()}, true
			}
			return o.exit, o.err == nil
		case <-stop:
			stop = nil
			if err := t.s.config.Driver.Stop(ctx, t.id(), grace(t.assignment().Program)); err != nil {
				t.s.config.Log.Error("stop a task", "task", t.id(), "error", err)
			}
		case <-tick.C:
			t.progress(progress)
		}
	}
}

// progress tells what the task has newly said of its work.
func (t *task) progress(reader *progressReader) {
	if now, news := reader.read(); news {
		status := t.status()
		status.Progress = now
		t.show(status)
	}
}

// startMirror mirrors checkpoints until it is cancelled.
func (t *task) startMirror(ctx context.Context) (cancel func(), done <-chan struct{}) {
	closed := make(chan struct{})
	mirror := t.mirror()
	if mirror == nil {
		close(closed)
		return func() {}, closed
	}
	ctx, cancel = context.WithCancel(ctx)
	go func() {
		defer close(closed)
		tick := time.NewTicker(checkpointEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := mirror.Sync(ctx); err != nil && ctx.Err() == nil {
					t.s.config.Log.Warn("checkpoints are not mirrored; trying again", "task", t.id(), "error", err)
				}
			}
		}
	}()
	return cancel, closed
}

// mirror returns nil if the task has no checkpoints to keep.
func (t *task) mirror() *staging.Mirror {
	assignment := t.assignment()
	if !assignment.Program.Checkpoints || t.s.config.Store == nil {
		return nil
	}
	uri := "s3://" + t.s.config.Bucket + "/jobs/" + assignment.Task.Job + "/checkpoints/"
	mirror, err := staging.NewMirror(t.s.config.Store, uri, assignment.Task, t.folders.Checkpoints())
	if err != nil {
		return nil
	}
	return mirror
}
