// Package process runs tasks as plain processes, each below a shim of its own.
//
// The driver holds nothing that cannot be read again: see package shim for the
// files. It keeps a pidfd on each shim, which tells of its end without polling and
// cannot be fooled by a pid that is used again. Linux 5.10 or newer.
package process

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// Config is what the driver needs.
type Config struct {
	Root   string       // a task's files are in Root/FolderName(ID)
	Shim   string       // path of the clary-shim program
	Groups *cgroup.Host // nil: no control groups
	Host   string       // address on which tasks may listen instead of the loopback
	Log    *slog.Logger

	Patience time.Duration // for a shim to say that its task runs; 0 is half a minute
}

// Driver implements runtime.Driver, Leaser, LogKeeper, Meter, Isolator, Execer, Dialer and Occupant.
type Driver struct {
	config    Config
	isolation func() error // tried once

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu      sync.Mutex
	tasks   map[string]*handle
	running sync.WaitGroup
}

// handle follows one task's shim.
type handle struct {
	id, dir string
	started time.Time
	pidfd   *os.File           // nil once ended
	child   int                // the shim's pid if it is our child and must be reaped
	status  syscall.WaitStatus // of the shim, if it was our child and has ended
	done    chan struct{}      // closed when exit is set, or abandoned
	exit    runtime.Exit
	err     error
}

// New opens a driver over the folder Root, which it makes.
func New(config Config) (*Driver, error) {
	if err := os.MkdirAll(config.Root, 0o700); err != nil {
		return nil, fault.New(fault.Internal, "open task folders: %w", err)
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Patience == 0 {
		config.Patience = readyTimeout
	}
	if config.Groups == nil {
		config.Groups = cgroup.Open("", "")
	}
	for _, lack := range config.Groups.Lacks() {
		config.Log.Warn(lack)
	}
	d := &Driver{
		config: config, tasks: map[string]*handle{},
		isolation: sync.OnceValue(func() error { return tryIsolation(config.Shim) }),
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d, nil
}

// Close lets go of the tasks, which run on, and waits for the driver's goroutines.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.cancel()
	var errs []error
	for _, h := range d.tasks {
		if h.pidfd != nil {
			errs = append(errs, h.pidfd.Close())
		}
	}
	d.mu.Unlock()
	d.running.Wait()
	return errors.Join(errs...)
}

// Lacks says what tasks on this node are not limited in.
func (d *Driver) Lacks() []string { return d.config.Groups.Lacks() }

func (d *Driver) folder(id string) (string, error) {
	name, err := runtime.FolderName(id)
	if err != nil {
		return "", err
	}
	return filepath.Join(d.config.Root, name), nil
}

func (d *Driver) find(id string) (*handle, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.tasks[id]
	if !ok {
		return nil, fault.New(fault.NotFound, "task %s is not on this node", id)
	}
	return h, nil
}

// Wait returns how the task ended.
func (d *Driver) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	h, err := d.find(id)
	if err != nil {
		return runtime.Exit{}, err
	}
	select {
	case <-h.done:
		return h.exit, h.err
	case <-ctx.Done():
		return runtime.Exit{}, context.Cause(ctx)
	}
}

// Stop leaves the wish in the task's folder and nudges the shim.
func (d *Driver) Stop(_ context.Context, id string, grace time.Duration) error {
	h, err := d.find(id)
	if err != nil || h.ended() {
		return err
	}
	if err := shim.WriteJSON(h.dir, shim.StopFile, shim.Stop{Grace: grace}, false); err != nil {
		return fault.New(fault.Internal, "stop task %s: %w", id, err)
	}
	return h.nudge()
}

// SetLease lets an exclusive task run for so long from now.
func (d *Driver) SetLease(id string, left time.Duration) error {
	h, err := d.find(id)
	if err != nil || h.ended() {
		return err
	}
	return shim.SetLease(h.dir, shim.Now()+left)
}

// Usage tells what a task uses now, or used when it ended.
func (d *Driver) Usage(id string) (runtime.Usage, error) {
	h, err := d.find(id)
	if err != nil {
		return runtime.Usage{}, err
	}
	if h.ended() {
		return h.exit.Usage, nil
	}
	name, err := runtime.FolderName(id)
	if err != nil {
		return runtime.Usage{}, err
	}
	return usage(d.config.Groups.Find(name).Usage()), nil
}

// Occupies tells the task's processes: without control groups the first, and those of its
// session that can be seen.
func (d *Driver) Occupies(_ context.Context, id string) (folders []string, pids []int, err error) {
	h, err := d.find(id)
	if err != nil || h.ended() {
		return nil, nil, err
	}
	if group := d.config.Groups.Find(filepath.Base(h.dir)); !group.Empty() {
		return nil, group.Pids(), nil
	}
	var start shim.Start
	if err := shim.ReadJSON(h.dir, shim.StartFile, &start); err != nil {
		return nil, nil, fault.New(fault.Internal, "task %s: %w", id, err)
	}
	return nil, start.Session(), nil
}

// Remove deletes the driver's files of an ended task.
func (d *Driver) Remove(_ context.Context, id string) error {
	dir, err := d.folder(id)
	if err != nil {
		return err
	}
	h, err := d.find(id)
	if err == nil && !h.ended() {
		return fault.New(fault.Conflict, "task %s still runs: stop it first", id)
	}
	if err != nil && locked(dir) {
		return fault.New(fault.Conflict, "task %s still runs: recover and stop it first", id)
	}
	errs := []error{journal.Remove(filepath.Join(dir, shim.LogFile))}
	for _, file := range []string{
		shimLog, shim.SpecFile, shim.StopFile, shim.LeaseFile, shim.StartFile, shim.ExitFile, shim.LockFile,
	} {
		if err := os.Remove(filepath.Join(dir, file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, d.config.Groups.Find(filepath.Base(dir)).Remove())
	d.mu.Lock()
	delete(d.tasks, id)
	d.mu.Unlock()
	return errors.Join(errs...)
}

func (h *handle) ended() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

func usage(u cgroup.Usage) runtime.Usage {
	return runtime.Usage{CPU: time.Duration(u.CPUNanos), Memory: u.Memory, PeakMemory: u.PeakMemory, Refused: u.Refused}
}
