package supervisor

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
)

const (
	defaultGrace   = 30 * time.Second
	forgetPause    = 2 * time.Second // until what could not be cleared away is tried again, and longer each time
	maxForgetPause = 10 * time.Second
)

// task is one task's goroutine and what others tell it.
//
//	assigned ─▶ staging ─▶ ready ─▶ running ─▶ uploading ─▶ succeeded
//	    └──────────┴─────────┴─────────┴───────────┴──────▶ failed, stopped, lost
//
// staging and uploading are passed only if there is something to move, ready only if the
// gang starts together.
type task struct {
	s       *Supervisor
	folder  string
	folders staging.Folders

	// Guarded by s.mu; the goroutine alone changes the status.
	entry   ledger.Entry
	version uint64
	// certified is what the task shows and whom it trusts; nil without a certificate, or before it has one.
	certified *pki.Current

	stop    chan struct{} // closed: it is to end
	gone    chan struct{} // closed: and to be forgotten
	over    chan struct{} // closed: what ran of it has ended
	stopped sync.Once
	// condemned has why the agent itself ends it.
	condemned chan string
	// releases give back what the task's goroutine holds for its process.
	releases []func()
	// Of the goroutine's own too: what brings its log to the store, what it mirrors, and why the
	// agent itself ended it.
	shipping   *shipment
	checkpoint atomic.Int64 // when the newest was written that is whole in the store
	mirrored   []*staging.Mirror
	continuous map[string]*staging.Mirror // of mirrored, those of continuous outputs, by name
	why        string
	// unheard: the driver could not take that the task is to end within this time.
	unheard bool
	within  time.Duration
	left    sync.Once
}

func newTask(s *Supervisor, entry ledger.Entry) *task {
	name, _ := runtime.FolderName(entry.Assignment.Task.ID) // checked when it was promised
	folder := filepath.Join(s.config.Root, name)
	s.version++
	t := &task{
		s: s, folder: folder, folders: staging.Folders{Base: filepath.Join(folder, "ml")},
		entry: entry, version: s.version, stop: make(chan struct{}), gone: make(chan struct{}), over: make(chan struct{}), condemned: make(chan string, 1),
	}
	t.checkpoint.Store(entry.Status.Progress.Checkpoint)
	if entry.Assignment.Stop {
		t.end()
	}
	return t
}

// update takes in what may change of an assignment: the wish to stop, and whether its gang
// is still waited for. With s.mu held.
func (t *task) update(assignment ledger.Assignment) {
	t.entry.Assignment.Hold = assignment.Hold
	if assignment.Stop && !t.entry.Assignment.Stop {
		t.entry.Assignment.Stop, t.entry.Assignment.StopReason = true, assignment.StopReason
		t.end()
	}
}

func (t *task) end()     { t.stopped.Do(func() { close(t.stop) }) }
func (t *task) abandon() { t.end(); t.left.Do(func() { close(t.gone) }) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (t *task) id() string { return t.entry.Assignment.Task.ID }

// assignment returns a copy that nobody changes.
func (t *task) assignment() ledger.Assignment {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.entry.Assignment
}

func (t *task) status() cluster.TaskStatus {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.entry.Status
}

// become writes a new status to the ledger and then tells it. A ledger that cannot
// be written is logged and told all the same: the coordinator's record is the other
// copy, and a task must not hang for it.
func (t *task) become(change func(*cluster.TaskStatus)) {
	t.s.mu.Lock()
	entry := t.entry
	t.s.mu.Unlock()
	change(&entry.Status)
	if err := t.s.config.Ledger.Put(entry); err != nil {
		t.s.config.Log.Error("record a task's state", "task", t.id(), "state", entry.Status.State, "error", err)
	}
	t.show(entry.Status)
}

// show tells a status without writing it down: progress can be read again.
func (t *task) show(status cluster.TaskStatus) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.entry.Status = status
	t.version = t.s.bump()
}

// live takes the task from where it stands to its end, and waits to be told that
// nobody needs it any more. When ctx ends it returns, and the next agent goes on.
func (t *task) live(ctx context.Context, ran bool) {
	if state := t.status().State; !state.Ended() {
		t.drive(ctx, state, ran)
	} else if ran && t.ships() {
		t.shipping = t.ship(ctx)
	}
	if t.shipping != nil {
		defer t.shipping.stop()
	}
	for _, release := range t.releases {
		release()
	}
	if ctx.Err() != nil {
		return
	}
	t.tidy()
	switch {
	case t.shipping != nil:
		t.settle(t.shipping)
	case t.entry.Archived:
		t.dropRecords() // the agent before may have died over it
	}
	select {
	case <-t.gone:
	case <-ctx.Done():
		return
	}
	// What ran it may not be reached now, or something of it be in use yet.
	for pause := forgetPause; t.s.forget(t.id()) != nil; pause = min(2*pause, maxForgetPause) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		t.unfeed()
	}
}

func (t *task) drive(ctx context.Context, state cluster.TaskState, ran bool) {
	switch {
	case ran:
	case state == cluster.TaskRunning || state == cluster.TaskUploading:
		t.finish(cluster.TaskLost, "its folder is gone from the node: nobody knows how it ended")
		return
	default:
		if !t.prepareAndStart(ctx) {
			t.release()
			return
		}
	}
	if t.ships() {
		t.shipping = t.ship(ctx)
	}
	if exit, ok := t.follow(ctx); ok {
		close(t.over)
		t.release()
		t.conclude(ctx, exit)
	}
}

// prepareAndStart reports whether the task runs; if not, it has ended or ctx has.
func (t *task) prepareAndStart(ctx context.Context) bool {
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	defer func() { cancel(); <-over }()
	go func() { // a stop ends the staging
		defer close(over)
		select {
		case <-t.stop:
			cancel()
		case <-work.Done():
		}
	}()
	spec, err := t.prepare(work)
	if err == nil && work.Err() == nil && !isClosed(t.stop) {
		var started time.Time
		err = patiently(work, func() error {
			var err error
			started, err = t.s.config.Driver.Start(ctx, spec)
			return err
		})
		if err == nil {
			t.become(func(s *cluster.TaskStatus) { s.State, s.Started = cluster.TaskRunning, started.UnixNano() })
			return true
		}
	}
	switch {
	case ctx.Err() != nil: // the agent ends: the next one begins again
	case isClosed(t.stop):
		t.finish(cluster.TaskStopped, t.stopReason())
	default:
		t.finish(cluster.TaskFailed, err.Error())
	}
	return false
}

func (t *task) stopReason() string {
	if reason := t.assignment().StopReason; reason != "" {
		return reason
	}
	return "stopped on request"
}

func (t *task) finish(state cluster.TaskState, reason string) {
	t.become(func(s *cluster.TaskStatus) {
		s.State, s.Reason, s.Healthy = state, reason, 0
		if s.Ended == 0 {
			s.Ended = time.Now().UnixNano()
		}
	})
}
