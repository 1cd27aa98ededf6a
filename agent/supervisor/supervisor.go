// Package supervisor makes a node run what it should: it drives each task from
// staging its inputs to uploading its outputs, and survives being killed on the way.
//
// It is level-triggered: it is told what the node should have and works towards
// that; it can always say all that the node has. Each step is in the ledger before
// it is told. What a task is doing is found on its own folder again after a restart.
package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/clary-ml/clary/agent/diskuse"
	"github.com/clary-ml/clary/agent/feeder"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
	"github.com/clary-ml/clary/storage/journal"
)

// Config is what the supervisor works with. Store and Certify may be nil; a task
// that needs what is missing fails and says so.
type Config struct {
	Root    string // the tasks' folders, the same as the driver's
	Driver  runtime.Driver
	Ledger  *ledger.Ledger
	Store   staging.Store
	Cache   *staging.Cache
	Bucket  string // where outputs and checkpoints go; "clary" if empty
	Certify Certify
	Trust   *pki.Current                                                      // the node's own certificate: tasks trust whom it trusts; nil: theirs are not renewed
	Secrets func(ctx context.Context, task string) (map[string][]byte, error) // values of a task's secrets, by name
	Memory  string                                                            // folder on a file system in memory, for files with secrets
	Listen  string                                                            // host address that tasks bind their ports on
	Program string                                                            // path of the node's own clary binary
	Hide    []string                                                          // folders of the node that no task sees
	// User is whom the tasks of a queue run as, on a driver that can isolate them; nil lets
	// tasks share the node's view and run as the agent.
	User         func(queue string) (runtime.User, error)
	Interface    string              // network interface that has Listen
	Environments Environments        // nil: none are made
	Feeders      Feeders             // nil: inputs are files only
	Feed         feeder.Instructions // what all feeders of the node are told: Access, Cache and Limit
	// Disk is how many bytes a task may write on the node's disk if it does not say; 0 is no
	// limit. When fewer than DiskReserve are free, the task that has most is ended. Room
	// looks; nil is diskuse.RoomOf.
	Disk, DiskReserve int64
	Room              func(folder string) (diskuse.Room, error)
	// Refused is told when a task was not taken in, since the disk is full; nil is nobody.
	Refused func()
	// Gauge is what a device measures of itself lately; nil if nobody knows.
	Gauge func(uuid string) map[string]float64
	// Slot names a slot of a partitioned device for programs; nil if the node has none.
	Slot  func(ctx context.Context, share cluster.DeviceShare) (string, error)
	Lease func() time.Duration // how long this node counts as alive for sure; cluster.LeaseTime if nil
	Log   *slog.Logger
}

// Environments makes Python environments, one for each set of requirements.
type Environments interface {
	// Root is below which all environments are; programs in them name it.
	Root() string
	// Ensure returns the folder of an environment's programs. It is not deleted before
	// release is called.
	Ensure(ctx context.Context, python cluster.Python) (bin string, release func(), err error)
}

// Certify has a key for a task's ports certified by the cluster.
type Certify func(ctx context.Context, task string, csrPEM []byte) (certPEM, caPEM []byte, err error)

// Held is a task that the node has, and how it is.
type Held struct {
	Task   string
	Status cluster.TaskStatus
}

// Supervisor runs a node's tasks.
type Supervisor struct {
	config  Config
	ctx     context.Context // ends the tasks' goroutines, not the tasks
	cancel  context.CancelFunc
	working sync.WaitGroup

	promising sync.Mutex // held while promises are written: one Desired at a time

	mu      sync.Mutex
	closed  bool
	tasks   map[string]*task
	claims  map[string]*task // who has a device or a port
	version uint64           // counts changes
	changed chan struct{}    // closed and replaced at each change
}

// Open reads the ledger, finds the tasks that still run and takes up where the
// agent before left off.
func Open(ctx context.Context, config Config) (*Supervisor, error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Bucket == "" {
		config.Bucket = "clary"
	}
	if config.Lease == nil {
		config.Lease = func() time.Duration { return cluster.LeaseTime }
	}
	if config.Room == nil {
		config.Room = diskuse.RoomOf
	}
	entries, err := config.Ledger.All()
	if err != nil {
		return nil, err
	}
	found, err := config.Driver.Recover(ctx)
	if err != nil {
		return nil, err
	}
	s := &Supervisor{config: config, tasks: map[string]*task{}, claims: map[string]*task{}, changed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	known := map[string]runtime.Found{}
	for _, f := range found {
		known[f.ID] = f
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, entry := range entries {
		id := entry.Assignment.Task.ID
		f, ran := known[id]
		delete(known, id)
		if ran && entry.Status.Started == 0 {
			entry.Status.Started = f.Started.UnixNano()
		}
		s.begin(entry, ran)
	}
	folders := map[string]bool{}
	for id := range s.tasks {
		name, _ := runtime.FolderName(id) // checked when it was promised
		folders[name] = true
	}
	s.sweepSecrets(entries)
	for id := range known { // run by nobody's promise: a folder whose ledger was lost
		s.begin(orphan(id), true).abandon()
	}
	s.sweepFeeders(folders)
	s.working.Go(func() { s.watchDisk(s.ctx) })
	return s, nil
}

func orphan(id string) ledger.Entry {
	return ledger.Entry{
		Assignment: ledger.Assignment{Task: cluster.Task{ID: id}},
		Status:     cluster.TaskStatus{State: cluster.TaskRunning},
	}
}

// Close lets go of the tasks, which run on, and waits for its own goroutines.
func (s *Supervisor) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.working.Wait()
}

// begin makes a task known and starts its goroutine; ran says that the driver has
// it. It is called with the lock.
func (s *Supervisor) begin(entry ledger.Entry, ran bool) *task {
	t := newTask(s, entry)
	s.tasks[entry.Assignment.Task.ID] = t
	if ran && !entry.Status.State.Ended() {
		t.take(entry.Assignment)
	}
	s.working.Go(func() { t.live(s.ctx, ran) })
	return t
}

// Desired tells what the node should have: all of it if whole, else what changed.
// gone names tasks to end and forget. What is promised here is on disk when Desired
// returns; the work itself goes on behind. On a full disk nothing is promised: new tasks are told lost, so that they go elsewhere.
func (s *Supervisor) Desired(whole bool, assignments []ledger.Assignment, gone []string) error {
	s.promising.Lock()
	defer s.promising.Unlock()
	fresh, err := s.unknown(assignments)
	if err != nil {
		return err
	}
	if len(fresh) > 0 {
		if err := s.config.Ledger.Put(fresh...); errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			s.refuse(fresh, err)
		} else if err != nil { // one write for all
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fault.New(fault.Unready, "the agent is ending: the next one takes up what was promised")
	}
	for _, entry := range fresh {
		s.begin(entry, false)
	}
	wanted := map[string]bool{}
	for _, assignment := range assignments {
		wanted[assignment.Task.ID] = true
		if t := s.tasks[assignment.Task.ID]; t != nil {
			t.update(assignment)
		}
	}
	for id, t := range s.tasks {
		if whole && !wanted[id] || slices.Contains(gone, id) {
			t.abandon()
		}
	}
	s.bump()
	return nil
}

// refuse ends tasks that could not be promised, before they begin.
func (s *Supervisor) refuse(fresh []ledger.Entry, err error) {
	for i := range fresh {
		fresh[i].Status = cluster.TaskStatus{State: cluster.TaskLost, Reason: "not taken in, since the node's disk is full: " + err.Error(), Ended: time.Now().UnixNano()}
	}
	s.config.Log.Warn("the disk is full: new tasks are not taken in", "tasks", len(fresh), "error", err)
	if s.config.Refused != nil {
		s.config.Refused()
	}
}

// unknown are the assignments that are not yet promised, once each.
func (s *Supervisor) unknown(assignments []ledger.Assignment) ([]ledger.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var fresh []ledger.Entry
	seen := map[string]bool{}
	for _, assignment := range assignments {
		id := assignment.Task.ID
		if _, err := runtime.FolderName(id); err != nil {
			return nil, err
		}
		if s.tasks[id] == nil && !seen[id] {
			fresh = append(fresh, ledger.Entry{Assignment: assignment, Status: cluster.TaskStatus{State: cluster.TaskAssigned}})
		}
		seen[id] = true
	}
	return fresh, nil
}

// Held returns everything the node has, by task ID, and the version of that answer.
func (s *Supervisor) Held() ([]Held, uint64) { return s.Changes(0) }

// Changes returns what changed after the version, and the version now. Asking with
// the version of a lost answer gives everything that was lost.
func (s *Supervisor) Changes(after uint64) ([]Held, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var held []Held
	for _, id := range slices.Sorted(maps.Keys(s.tasks)) {
		if t := s.tasks[id]; t.version > after || after == 0 {
			held = append(held, Held{Task: id, Status: t.entry.Status})
		}
	}
	return held, s.version
}

// Changed returns a channel that is closed when there is something after version.
func (s *Supervisor) Changed(version uint64) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version > version {
		now := make(chan struct{})
		close(now)
		return now
	}
	return s.changed
}

// bump counts a change and wakes those who wait for one. It is called with the lock.
func (s *Supervisor) bump() uint64 {
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
	return s.version
}

// Renew lets exclusive tasks run for so long from now.
func (s *Supervisor) Renew(left time.Duration) error {
	leaser, ok := s.config.Driver.(runtime.Leaser)
	if !ok {
		return nil
	}
	s.mu.Lock()
	var ids []string
	for id, t := range s.tasks {
		if t.entry.Assignment.Program.Exclusive && t.entry.Status.State == cluster.TaskRunning {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, id := range ids {
		if err := leaser.SetLease(id, left); err != nil && !fault.Is(err, fault.NotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Logs gives what the query wants of what a task wrote. NotFound says that it is not on this
// node, or no longer: it is in the object store then.
func (s *Supervisor) Logs(ctx context.Context, id string, query journal.Query, sink journal.Sink) error {
	if _, err := s.recorded(id); err != nil {
		return err
	}
	return s.config.Driver.Logs(ctx, id, query, sink)
}

// recorded is the task of whose records this node has its copy.
func (s *Supervisor) recorded(id string) (*task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[id]
	if t == nil {
		return nil, fault.New(fault.NotFound, "task %s is not on this node", cluster.Clip(id))
	}
	if t.entry.Archived {
		return nil, fault.New(fault.NotFound, "the records of task %s are in the object store", id)
	}
	return t, nil
}

// forget ends the story of a task that is no longer wanted. What the driver has of it goes
// first, and the promise last: if that cannot be done now, or the agent dies before, it is
// done again.
func (s *Supervisor) forget(id string) error {
	err := s.clear(id)
	if name, errName := runtime.FolderName(id); err == nil && errName == nil {
		err = tree.RemoveAll(filepath.Join(s.config.Root, name))
	}
	if err == nil {
		err = s.config.Ledger.Delete(id)
	}
	if err != nil && s.ctx.Err() == nil {
		s.config.Log.Error("clear away a task", "task", id, "error", err)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, id)
	s.bump()
	return nil
}

// clear has the driver remove a task. After a restart the driver may know later than the
// ledger that it has ended.
func (s *Supervisor) clear(id string) error {
	ctx, driver := context.WithoutCancel(s.ctx), s.config.Driver
	err := driver.Remove(ctx, id)
	if !fault.Is(err, fault.Conflict) {
		return err
	}
	if err := driver.Stop(ctx, id, 0); err != nil {
		return err
	}
	if _, err := driver.Wait(s.ctx, id); err != nil {
		return err
	}
	return driver.Remove(ctx, id)
}
