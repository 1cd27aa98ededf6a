package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
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
	starved, watched := t.watchFeeder(ctx)
	defer watched()
	watcher := t.watch(ctx)
	defer t.keepCertified(ctx)()
	probed, unprobe := t.probe(ctx)
	defer unprobe()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	stop := t.stop
	for {
		select {
		case o := <-ended:
			if o.err != nil {
				watcher.close()
			} else {
				watcher.end(o.exit)
			}
			if o.err != nil && ctx.Err() == nil && !fault.Is(o.err, fault.Unready) {
				return runtime.Exit{Code: -1, Unknown: true, Ended: time.Now()}, true
			}
			return o.exit, o.err == nil
		case <-stop:
			stop = nil
			unprobe() // what it answers from here on says nothing
			t.terminate(ctx)
		case news := <-probed:
			t.heard(ctx, news)
		case reason := <-t.condemned:
			t.execute(ctx, reason)
		case err := <-starved:
			t.s.config.Log.Warn("a task's inputs can no longer be served; ending it", "task", t.id(), "error", err)
			t.terminate(ctx)
		case <-tick.C:
			watcher.look()
			if t.unheard {
				t.bid(ctx, t.within)
			}
		}
	}
}

// terminate asks the running task to end.
func (t *task) terminate(ctx context.Context) {
	t.warn()
	t.bid(ctx, grace(t.assignment().Program))
}

// bid has the driver end the task within a time. What the driver cannot take, as when the disk is full, is said again.
func (t *task) bid(ctx context.Context, within time.Duration) {
	err := t.s.config.Driver.Stop(ctx, t.id(), within)
	if err != nil {
		t.s.config.Log.Error("stop a task", "task", t.id(), "error", err)
	}
	t.unheard, t.within = err != nil, within
}

// warn tells the task, in a file, until when it may run; the signal follows.
func (t *task) warn() {
	root, err := os.OpenRoot(t.folders.Base)
	if err == nil {
		until := time.Now().Add(grace(t.assignment().Program)).Format(time.RFC3339Nano)
		name, _ := filepath.Rel(t.folders.Base, t.folders.PreemptAt())
		err = errors.Join(root.WriteFile(name, []byte(until+"\n"), 0o644), root.Close())
	}
	if err != nil {
		t.s.config.Log.Warn("tell a task that it is to end", "task", t.id(), "error", err)
	}
}

// startMirror copies checkpoints and output to the store until it is cancelled, or nobody wants the
// task any more.
func (t *task) startMirror(ctx context.Context) (cancel func(), done <-chan struct{}) {
	closed := make(chan struct{})
	mirrors := t.mirrors()
	if len(mirrors) == 0 {
		close(closed)
		return func() {}, closed
	}
	ctx, cancel = t.whileWanted(ctx)
	go func() {
		defer close(closed)
		tick := time.NewTicker(checkpointEvery)
		defer tick.Stop()
		said := map[string]string{} // by folder, what was logged of it last: the same again is no news
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, mirror := range mirrors {
				if mirror.Sent != nil && isClosed(t.stop) {
					continue // see liveMirror
				}
				err := mirror.Sync(ctx)
				if ctx.Err() != nil {
					return
				}
				t.checkpointed(mirror)
				if err != nil && said[mirror.Folder.Name] != err.Error() {
					t.s.config.Log.Warn("a task's folder is not mirrored; trying again", "task", t.id(), "folder", mirror.Folder.Name, "error", err)
				}
				said[mirror.Folder.Name] = fmt.Sprint(err)
			}
		}
	}()
	return cancel, closed
}

// checkpointed notes the newest checkpoint, if that is what the mirror is of. The follower tells it.
func (t *task) checkpointed(mirror *staging.Mirror) {
	if whole := mirror.Whole(); mirror.Folder.Name == t.folders.Below(t.folders.Checkpoints()).Name && !whole.IsZero() {
		t.checkpoint.Store(max(t.checkpoint.Load(), min(whole.UnixNano(), time.Now().UnixNano())))
	}
}

// mirrors are the folders that are kept in the store while the task runs. They are the same
// for all its life, since each knows what it has sent.
func (t *task) mirrors() []*staging.Mirror {
	if t.mirrored == nil {
		t.mirrored = t.newMirrors()
	}
	return t.mirrored
}

func (t *task) newMirrors() []*staging.Mirror {
	assignment, config := t.assignment(), t.s.config
	if config.Store == nil {
		return nil
	}
	var mirrors []*staging.Mirror
	if assignment.Program.Checkpoints {
		uri := "s3://" + config.Bucket + "/jobs/" + assignment.Task.Job + "/checkpoints/"
		if mirror, err := staging.NewMirror(config.Store, uri, assignment.Task, t.folders.Below(t.folders.Checkpoints())); err == nil {
			if assignment.Elastic && assignment.Task.Index > 0 { // the first keeps what all were given: see staging.Restore
				mirror.Since = time.Unix(0, t.status().Started)
			}
			mirrors = append(mirrors, mirror)
		}
	}
	if assignment.Program.Outputs {
		mirrors = append(mirrors, &staging.Mirror{
			Store: config.Store, Folder: t.folders.Below(t.folders.OutputIntermediate()), Bucket: config.Bucket,
			Prefix: attemptPrefix(assignment.Task) + "/intermediate/",
		})
	}
	t.continuous = map[string]*staging.Mirror{}
	for _, export := range assignment.Program.Exports {
		if export.Continuous {
			mirror := t.liveMirror(assignment.Task, export)
			t.continuous[export.Name] = mirror
			mirrors = append(mirrors, mirror)
		}
	}
	return mirrors
}

// liveMirror brings files of an output to where they are wanted as soon as they are whole. Each is
// first below the attempt's own prefix, so that whoever publishes knows what was ever put there; and
// none is put there while another attempt may run: when the node may count as lost, or the task is to
// end, as it is told before a node that was lost has a lease again.
func (t *task) liveMirror(task cluster.Task, export cluster.Export) *staging.Mirror {
	config := t.s.config
	mirror := &staging.Mirror{
		Store: config.Store, Folder: t.folders.Below(filepath.Join(t.folders.Base, export.Folder)), Bucket: config.Bucket,
		Prefix: attemptPrefix(task) + "/outputs/" + export.Name + "/", Keep: true, Max: staging.MaxExported,
	}
	bucket, key, err := staging.ParseURI(export.To)
	mirror.Sent = func(ctx context.Context, name string) error {
		if err != nil {
			return err
		}
		now := time.Now()
		left := config.Lease()
		switch { // in this order: a new lease follows the wish to end
		case left <= 0:
			return fault.New(fault.Unready, "the node has no lease: another attempt may run")
		case isClosed(t.stop):
			return fault.New(fault.Unready, "the task is to end: another attempt may run")
		}
		ctx, cancel := context.WithDeadline(ctx, now.Add(left))
		defer cancel()
		return config.Store.Copy(ctx, config.Bucket, mirror.Prefix+name, bucket, path.Join(key, name))
	}
	return mirror
}

// attemptPrefix is where a task's attempt keeps its own in the bucket.
func attemptPrefix(task cluster.Task) string {
	return path.Join("jobs", task.Job, "attempts", strconv.Itoa(int(task.Attempt)), task.Role+"-"+strconv.Itoa(int(task.Index)))
}
