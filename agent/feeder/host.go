package feeder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/agent/feeder/fastfile"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	politeFor = 5 * time.Second // between SIGTERM and SIGKILL
	killFor   = 5 * time.Second // for the kernel to end what was killed
	birthFor  = 5 * time.Second // between a feeder's fork and its first file
)

// Host is an agent's side: it starts feeders, finds them again and ends them.
type Host struct {
	Program string // the clary binary
	// Shelter is a control group of the v2 tree that outlives the agent's, or "".
	Shelter string
	Env     []string // beside what a feeder is always given
	Log     *slog.Logger

	mu       sync.Mutex
	children map[string]*os.Process // by folder: those to be reaped
}

// Start starts the feeder of a task that does not run yet, and returns when everything is
// there that the task will find. One that is there already, of an earlier agent's try, is
// ended first.
func (h *Host) Start(ctx context.Context, dir string, todo Instructions) error {
	if err := h.Stop(dir); err != nil {
		return err
	}
	said, err := h.launch(dir, todo)
	if err != nil {
		return fault.New(fault.Internal, "start the input feeder: %w", err)
	}
	defer said.Close() //nolint:errcheck // only read
	err = await(ctx, dir, said, ready)
	if err != nil {
		return errors.Join(err, h.Stop(dir))
	}
	return nil
}

// launch forks the feeder. Its pipe is open from before it exists, so that there is no
// instant at which it lives unnoticed by an agent that comes after.
func (h *Host) launch(dir string, todo Instructions) (*os.File, error) {
	path := filepath.Join(dir, aliveFile)
	err := errors.Join(remove(filepath.Join(dir, failedFile), filepath.Join(dir, pidFile)), writeJSON(dir, instructionsFile, todo), unix.Mkfifo(path, 0o600))
	if err != nil {
		return nil, err
	}
	alive, err := os.OpenFile(path, os.O_RDWR, 0) // a pipe's writer alone would wait for a reader
	if err != nil {
		return nil, err
	}
	defer alive.Close() //nolint:errcheck // the feeder has its own copy
	said, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := h.fork(dir, alive); err != nil {
		return nil, errors.Join(err, said.Close())
	}
	return said, nil
}

// fork starts the program in a session and control group apart from the agent's, so that
// nothing that ends the agent reaches it.
func (h *Host) fork(dir string, alive *os.File) error {
	complaints, err := os.OpenFile(filepath.Join(dir, logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer complaints.Close() //nolint:errcheck // the feeder has its own copy
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close() //nolint:errcheck // only read
	attr := &syscall.SysProcAttr{Setsid: true}
	if h.Shelter != "" {
		folder, err := os.Open(h.Shelter)
		if err != nil {
			return err
		}
		defer folder.Close() //nolint:errcheck // only read
		attr.UseCgroupFD, attr.CgroupFD = true, int(folder.Fd())
	}
	child, err := os.StartProcess(h.Program, []string{"clary", Argument, dir}, &os.ProcAttr{
		Dir: "/", Sys: attr, Files: []*os.File{null, complaints, complaints, alive},
		// A collector that runs more often empties the pools of buffers: three times as slow.
		Env: append([]string{"GOMEMLIMIT=256MiB", "PATH=" + os.Getenv("PATH")}, h.Env...),
	})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.children == nil {
		h.children = map[string]*os.Process{}
	}
	h.children[dir] = child
	return nil
}

// Wait returns, with the reason, when a feeder can no longer serve, also one that another
// agent started; or when ctx ends.
func (h *Host) Wait(ctx context.Context, dir string) error {
	if err := Failure(dir); err != nil {
		return err
	}
	said, err := os.OpenFile(filepath.Join(dir, aliveFile), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fault.New(fault.Internal, "its input feeder is not there: %w", err)
	}
	defer said.Close() //nolint:errcheck // only read
	return await(ctx, dir, said, 0)
}

// await reads what a feeder says until it says the letter, or has no more to say.
func await(ctx context.Context, dir string, said *os.File, letter byte) error {
	stop := context.AfterFunc(ctx, func() { _ = said.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	one := make([]byte, 1)
	for {
		_, err := said.Read(one)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !errors.Is(err, io.EOF):
			return fault.New(fault.Internal, "hear of the input feeder: %w", err)
		case err == nil && one[0] == letter:
			return nil
		case err == nil && one[0] != failed:
			continue
		}
		if why := Failure(dir); why != nil {
			return why
		}
		if over(dir) {
			return fault.New(fault.Internal, "its input feeder ended with the task")
		}
		died := fault.New(fault.Internal, "its input feeder died; see %s", filepath.Join(dir, logFile))
		return errors.Join(died, writeFailure(dir, died)) // so that the next agent knows too
	}
}

// over reports whether the task's folder says that the task has ended, after which a
// feeder does too.
func over(dir string) bool {
	var todo Instructions
	text, err := os.ReadFile(filepath.Join(dir, instructionsFile))
	if err != nil || json.Unmarshal(text, &todo) != nil || todo.Until == "" {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, todo.Until))
	return err == nil
}

// alive reports whether a feeder lives.
func alive(dir string) bool {
	fd, err := unix.Open(filepath.Join(dir, aliveFile), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	for {
		n, err := unix.Read(fd, make([]byte, 64))
		if errors.Is(err, unix.EAGAIN) {
			return true // a pipe without content that has a writer
		}
		if n <= 0 && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

// Stop ends a task's feeder, whoever started it, and takes away what it left mounted. None
// is no error.
func (h *Host) Stop(dir string) error {
	err := h.end(dir)
	shown, _ := fs.Glob(os.DirFS(dir), shownFolder+"/*")
	errs := []error{err}
	for _, name := range shown {
		folder := filepath.Join(dir, name)
		if err := fastfile.Unmount(folder); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, remove(folder))
	}
	if err != nil {
		return errors.Join(errs...) // what is known of it stays known
	}
	return errors.Join(append(errs, remove(
		filepath.Join(dir, shownFolder), filepath.Join(dir, pidFile), filepath.Join(dir, instructionsFile), filepath.Join(dir, aliveFile),
	))...)
}

// end ends the process.
func (h *Host) end(dir string) error {
	defer h.reap(dir)
	for deadline := time.Now().Add(birthFor); alive(dir); time.Sleep(time.Millisecond) {
		fd, err := h.find(dir)
		if err != nil {
			if time.Now().After(deadline) {
				return fault.New(fault.Internal, "an input feeder lives and cannot be found: %w", err)
			}
			continue
		}
		return errors.Join(kill(dir, fd), unix.Close(fd))
	}
	return nil
}

// find takes hold of the feeder's process. That it is alive after that proves whose pid
// it was.
func (h *Host) find(dir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return -1, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	if !alive(dir) {
		return -1, errors.Join(fmt.Errorf("process %d is another's", pid), unix.Close(fd))
	}
	return fd, nil
}

func kill(dir string, fd int) error {
	for _, step := range []struct {
		signal   unix.Signal
		patience time.Duration
	}{{unix.SIGTERM, politeFor}, {unix.SIGKILL, killFor}} {
		if err := unix.PidfdSendSignal(fd, step.signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fault.New(fault.Internal, "end the input feeder: %w", err)
		}
		ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		deadline := time.Now().Add(step.patience)
		for left := step.patience; left > 0; left = time.Until(deadline) {
			n, err := unix.Poll(ended, int(left.Milliseconds())+1)
			if n > 0 {
				return nil
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return fault.New(fault.Internal, "wait for the input feeder's end: %w", err)
			}
		}
	}
	return fault.New(fault.Internal, "the input feeder of %s does not end though it was killed", dir)
}

// reap lets the kernel forget a child that has ended.
func (h *Host) reap(dir string) {
	h.mu.Lock()
	child := h.children[dir]
	delete(h.children, dir)
	h.mu.Unlock()
	if child != nil && !alive(dir) {
		_, _ = child.Wait()
	}
}

// Sweep ends the feeders of tasks below a folder that nobody knows.
func (h *Host) Sweep(root string, known func(name string) bool) error {
	found, _ := fs.Glob(os.DirFS(root), "*/"+aliveFile)
	shown, _ := fs.Glob(os.DirFS(root), "*/"+shownFolder)
	var errs []error
	for _, path := range append(found, shown...) {
		if name := filepath.Dir(path); !known(name) {
			errs = append(errs, h.Stop(filepath.Join(root, name)))
		}
	}
	return errors.Join(errs...)
}
