package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	killPatience  = 30 * time.Second
	birthPatience = 5 * time.Second // between a shim's fork and its first file
	readAgain     = 100 * time.Millisecond
)

// follow makes the task known and waits for its shim's end.
func (d *Driver) follow(h *handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tasks[h.id] = h
	if d.ctx.Err() != nil {
		h.err = errClosed
		close(h.done)
		_ = h.pidfd.Close()
		return
	}
	d.running.Go(func() {
		if err := h.await(); err != nil {
			h.err = err
			close(h.done)
			return
		}
		if h.child > 0 {
			_, _ = syscall.Wait4(h.child, &h.status, 0, nil)
		}
		d.conclude(h)
	})
}

// conclude finds out how a task ended whose shim is gone. What is there and cannot be read now is read again: an exit
// that is unknown is so for good.
func (d *Driver) conclude(h *handle) {
	defer close(h.done)
	for said := false; ; said = true {
		var err error
		if h.exit, err = d.outcome(h.dir, h.started); err == nil {
			return
		}
		if !said {
			d.config.Log.Error("read how a task ended; trying again", "task", h.id, "error", err)
		}
		select {
		case <-time.After(readAgain):
		case <-d.ctx.Done():
			h.err = errClosed
			return
		}
	}
}

// unreadable reports whether a file may be there, and cannot be read now.
func unreadable(err error) bool {
	var failed *fs.PathError
	return errors.As(err, &failed) && !errors.Is(err, fs.ErrNotExist)
}

var errClosed = fault.New(fault.Unready, "the agent is ending: its tasks run on")

// await returns nil when the shim is gone, an error when the driver was closed.
func (h *handle) await() error {
	raw, err := h.pidfd.SyscallConn()
	if err != nil {
		return errClosed
	}
	err = raw.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(ready, 0)
		return n > 0
	})
	if err != nil {
		return errClosed
	}
	return nil
}

// nudge tells the shim to look into its folder.
func (h *handle) nudge() error { return h.signal(unix.SIGUSR1) }

// signal sends one to the shim. A shim that is gone is no error.
func (h *handle) signal(number unix.Signal) error {
	raw, err := h.pidfd.SyscallConn()
	if err != nil {
		return errClosed
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		sent = unix.PidfdSendSignal(int(fd), number, nil, 0)
	})
	if errors.Is(sent, syscall.ESRCH) {
		return nil
	}
	return errors.Join(err, sent)
}

// outcome reads how a task ended whose shim is gone. Without exit.json the shim was
// killed: whatever is left of the task is ended, and the exit is unknown for good.
func (d *Driver) outcome(dir string, started time.Time) (runtime.Exit, error) {
	var exit shim.Exit
	err := shim.ReadJSON(dir, shim.ExitFile, &exit)
	if unreadable(err) {
		return runtime.Exit{}, err
	}
	if err != nil {
		d.sweep(dir)
		exit = shim.Exit{Code: -1, Unknown: true, Started: started, Ended: time.Now()}
		if err := shim.WriteJSON(dir, shim.ExitFile, exit, true); err != nil {
			d.config.Log.Error("record an unknown exit", "folder", dir, "error", err)
		}
	}
	return runtime.Exit{
		Code: exit.Code, Signal: exit.Signal, Error: exit.Error, Cause: runtime.Cause(exit.Cause),
		OutOfMemory: exit.OutOfMemory(), Unknown: exit.Unknown, Started: exit.Started, Ended: exit.Ended,
		Usage: usage(exit.Usage), LogsDropped: exit.Dropped,
	}, nil
}

// sweep kills what is left of a task without a shim.
func (d *Driver) sweep(dir string) {
	var start shim.Start
	if shim.ReadJSON(dir, shim.StartFile, &start) == nil {
		start.KillSession(killPatience)
	}
	group := d.config.Groups.Find(filepath.Base(dir))
	if err := errors.Join(group.Kill(killPatience), group.Remove()); err != nil {
		d.config.Log.Error("end a task whose shim was killed", "folder", dir, "error", err)
	}
}

// Recover finds every task below Root and follows those that still run. Control
// groups below the parent that belong to no task there are swept away, with what
// runs in them: the parent folder must be this agent's alone. It is called once,
// before the first Start.
func (d *Driver) Recover(_ context.Context) ([]runtime.Found, error) {
	entries, err := os.ReadDir(d.config.Root)
	if err != nil {
		return nil, fault.New(fault.Internal, "recover tasks: %w", err)
	}
	var found []runtime.Found
	known := map[string]bool{}
	for _, entry := range entries {
		id := runtime.TaskID(entry.Name())
		if _, err := d.find(id); err == nil || !entry.IsDir() {
			known[entry.Name()] = true
			continue
		}
		h, err := d.adopt(id, filepath.Join(d.config.Root, entry.Name()))
		if err != nil {
			return found, err
		}
		if h != nil {
			known[entry.Name()] = true
			found = append(found, runtime.Found{ID: id, Started: h.started, Running: !h.ended()})
		}
	}
	for _, name := range d.config.Groups.Names() {
		if !known[name] {
			d.sweep(filepath.Join(d.config.Root, name))
		}
	}
	return found, nil
}

// adopt takes over one task folder; nil if nothing was ever run in it.
func (d *Driver) adopt(id, dir string) (*handle, error) {
	h := &handle{id: id, dir: dir, done: make(chan struct{})}
	var start shim.Start
	err := shim.ReadJSON(dir, shim.StartFile, &start)
	// A shim that was forked by the agent that died just now may not yet have begun.
	for wait := time.Now().Add(birthPatience); err != nil && !unreadable(err) && locked(dir) && time.Now().Before(wait); {
		time.Sleep(time.Millisecond)
		err = shim.ReadJSON(dir, shim.StartFile, &start)
	}
	if err != nil {
		if unreadable(err) || locked(dir) {
			return nil, fault.New(fault.Internal, "recover task %s: it may run, and has no %s: %w", id, shim.StartFile, err)
		}
		d.sweep(dir)
		return nil, nil //nolint:nilnil // no task is an answer, not an error
	}
	h.started = start.Time
	fd, err := unix.PidfdOpen(start.Shim, unix.PIDFD_NONBLOCK)
	// The lock being held after the pidfd was opened proves that the pid is the
	// shim's still.
	if err == nil && locked(dir) {
		h.pidfd = os.NewFile(uintptr(fd), "shim")
		d.follow(h)
		return h, nil
	}
	if err == nil {
		_ = unix.Close(fd)
	}
	if locked(dir) {
		return nil, fault.New(fault.Internal, "recover task %s: its shim lives but not as pid %d", id, start.Shim)
	}
	d.mu.Lock()
	d.tasks[id] = h
	d.mu.Unlock()
	if h.exit, err = d.outcome(dir, start.Time); err == nil {
		close(h.done)
	} else {
		d.running.Go(func() { d.conclude(h) })
	}
	return h, nil
}

// takeLock takes the folder's lock without waiting.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, shim.LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// locked reports whether somebody holds the folder's lock, as far as can be seen.
func locked(dir string) bool {
	f, err := os.Open(filepath.Join(dir, shim.LockFile))
	if err != nil {
		return unreadable(err)
	}
	defer f.Close() //nolint:errcheck // only read
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}
