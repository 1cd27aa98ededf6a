package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/clary-ml/clary/agent/diskuse"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	diskEvery  = time.Second      // between looks at the disk as a whole
	diskIdle   = time.Minute      // between looks at a task while nothing hints at more
	diskRest   = 20               // a look takes at most one part in so many of the time
	diskRelief = 10 * time.Second // for a full disk to get room once a task was ended
	diskShare  = 20               // a task is ended for a full disk if it has at least one part in so many of it
)

// diskWatch ends tasks that take more of the node's disk than they may, and the one that
// takes most when there is almost none left. Looking at a task costs as much as it has
// files, so it is looked at again when the disk as a whole has lost what would take the
// task half of the way to its limit.
type diskWatch struct {
	s        *Supervisor
	looks    map[string]diskLook // by task
	relieved time.Time           // when a task was last ended for a full disk
	said     string              // what was logged last
}

// diskLook is what was seen of a task.
type diskLook struct {
	at    time.Time
	took  time.Duration
	taken int64 // of the whole disk
	use   diskuse.Use
}

func (s *Supervisor) watchDisk(ctx context.Context) {
	w := diskWatch{s: s, looks: map[string]diskLook{}}
	tick := time.NewTicker(diskEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.round(ctx)
		}
	}
}

// round looks at whatever is due.
func (w *diskWatch) round(ctx context.Context) {
	room, err := w.s.config.Room(w.s.config.Root)
	if err != nil {
		w.say(err.Error())
		return
	}
	tasks := w.running()
	low := len(tasks) > 0 && room.Free < w.s.config.DiskReserve && time.Since(w.relieved) > diskRelief
	var most *task
	for _, t := range tasks {
		limit := t.diskLimit()
		if !low && (limit == 0 || !w.due(t.id(), limit, room.Taken)) {
			continue
		}
		look, err := w.look(ctx, t, limit, room.Taken)
		w.looks[t.id()] = look
		switch {
		case ctx.Err() != nil:
			return
		case fault.Is(err, fault.Invalid):
			t.condemn("killed: what it has on disk cannot be told: " + err.Error())
		case err != nil:
			w.say(err.Error())
		case limit > 0 && look.use.Bytes > limit:
			t.condemn(fmt.Sprintf("killed: used more disk than it may (limit %s; %d files)", cluster.FormatBytes(limit), look.use.Files))
			low = false // there will be room
		case most == nil || look.use.Bytes > w.looks[most.id()].use.Bytes:
			most = t
		}
	}
	if low {
		w.relieve(room, most)
	}
}

// relieve ends the task that takes most of a disk that is almost full.
func (w *diskWatch) relieve(room diskuse.Room, most *task) {
	if most == nil {
		return
	}
	use := w.looks[most.id()].use.Bytes
	if use < room.Total/diskShare {
		w.say(fmt.Sprintf("%s of disk are free, and no task has much of the rest", cluster.FormatBytes(room.Free)))
		return
	}
	w.relieved = time.Now()
	most.condemn(fmt.Sprintf("killed: the node's disk is almost full (%s free), and it used most of it (%s)", cluster.FormatBytes(room.Free), cluster.FormatBytes(use)))
}

// running are the tasks that can write; what was seen of others is forgotten.
func (w *diskWatch) running() []*task {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	var tasks []*task
	for id, t := range w.s.tasks {
		if t.entry.Status.State == cluster.TaskRunning {
			tasks = append(tasks, t)
			continue
		}
		delete(w.looks, id)
	}
	for id := range w.looks {
		if w.s.tasks[id] == nil {
			delete(w.looks, id)
		}
	}
	return tasks
}

// due reports whether a task may have come to its limit since it was looked at.
func (w *diskWatch) due(id string, limit, taken int64) bool {
	last, seen := w.looks[id]
	if !seen {
		return true
	}
	since := time.Since(last.at)
	if since < diskRest*last.took {
		return false
	}
	return since >= diskIdle || 2*(taken-last.taken) >= limit-last.use.Bytes
}

// look counts what a task takes. More than its limit need not be counted, unless there is
// none.
func (w *diskWatch) look(ctx context.Context, t *task, limit, taken int64) (diskLook, error) {
	began := time.Now()
	assignment := t.assignment()
	question := diskuse.Question{Folders: []string{t.folders.Base, t.temp()}, Except: t.folders.Data(), Most: limit}
	contained := assignment.Program.Image != ""
	if t.s.config.User != nil && t.cannotIsolate(contained) == nil {
		user, err := t.s.config.User(assignment.Queue)
		if err != nil {
			return diskLook{}, err
		}
		question.Owner = &user.UID
	}
	if occupant, ok := t.s.config.Driver.(runtime.Occupant); ok {
		folders, pids, err := occupant.Occupies(ctx, t.id())
		if err != nil {
			return diskLook{at: began, taken: taken}, err
		}
		question.Folders, question.PIDs = append(question.Folders, folders...), pids
	}
	use, err := diskuse.Of(ctx, question)
	return diskLook{at: time.Now(), took: time.Since(began), taken: taken, use: use}, err
}

// say logs what was not said just before.
func (w *diskWatch) say(what string) {
	if w.said != what {
		w.s.config.Log.Warn("the node's disk", "problem", what)
	}
	w.said = what
}

// diskLimit is how many bytes the task may write; 0 is no limit.
func (t *task) diskLimit() int64 {
	if asked := t.assignment().Program.Disk; asked > 0 {
		return asked
	}
	return t.s.config.Disk
}

// condemnedFile says for what the agent itself ended a task. It is in the folder that only
// the agent enters, so that the next one knows it too.
const condemnedFile = "condemned"

// condemn has the task's goroutine end it, at once, for a reason.
func (t *task) condemn(reason string) {
	select {
	case t.condemned <- reason:
	default: // it was told already
	}
}

// execute ends a condemned task.
func (t *task) execute(ctx context.Context, reason string) {
	t.s.config.Log.Warn("ending a task", "task", t.id(), "reason", reason)
	t.why = reason
	if err := atomicfile.Write(filepath.Join(t.folder, condemnedFile), []byte(reason), 0o600); err != nil {
		t.s.config.Log.Error("note why a task is ended", "task", t.id(), "error", err)
	}
	t.bid(ctx, 0)
}

// sentence is for what the agent itself ended a task that nobody stopped, or "".
func (t *task) sentence(state cluster.TaskState) string {
	if isClosed(t.stop) || state != cluster.TaskStopped {
		return ""
	}
	if t.why != "" {
		return t.why
	}
	text, err := os.ReadFile(filepath.Join(t.folder, condemnedFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.s.config.Log.Warn("read why a task was ended", "task", t.id(), "error", err)
	}
	return strings.TrimSpace(string(text))
}
