package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// child is the started process and news of its end.
type child struct {
	pid    int
	status chan syscall.WaitStatus // one value when the process has ended
	orphan chan struct{}           // closed when no descendant is left either
}

// spawn starts the process inside its control groups and reaps it and whatever
// descends from it. One thread does both: it forks while it is itself in the v1
// groups, and it must live as long as the shim, for the kernel kills the process
// (Pdeathsig) when the thread that forked it ends.
func spawn(spec Spec, secrets []string, stdout, stderr *os.File) (*child, error) {
	c := &child{status: make(chan syscall.WaitStatus, 1), orphan: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := c.fork(spec, secrets, stdout, stderr)
		started <- err
		if err == nil {
			c.reap()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) fork(spec Spec, secrets []string, stdout, stderr *os.File) error {
	for _, limit := range spec.Rlimits {
		if err := syscall.Setrlimit(limit.Resource, &syscall.Rlimit{Cur: limit.Soft, Max: limit.Hard}); err != nil {
			return fmt.Errorf("set resource limit %d to %d: %w", limit.Resource, limit.Soft, err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close() //nolint:errcheck // only read
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	group, err := spec.Group.SpawnFD()
	if err != nil {
		return err
	}
	if group != nil {
		defer group.Close() //nolint:errcheck // only read
		attr.UseCgroupFD, attr.CgroupFD = true, int(group.Fd())
	}
	leave, err := spec.Group.Enter()
	if err != nil {
		return err
	}
	files := []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()}
	if spec.User != nil || spec.Sandbox != nil {
		c.pid, err = c.forkInside(spec, secrets, files, attr)
	} else {
		c.pid, err = forkPlain(spec, secrets, files, attr)
	}
	// Not being able to leave only means that this thread is counted with the task.
	_ = leave()
	return err
}

func forkPlain(spec Spec, secrets []string, files []uintptr, attr *syscall.SysProcAttr) (int, error) {
	path, err := lookPath(spec.Argv[0], spec.Env, spec.Dir)
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(path, spec.Argv, &syscall.ProcAttr{
		Dir: spec.Dir, Env: append(spec.Env[:len(spec.Env):len(spec.Env)], secrets...), Sys: attr, Files: files,
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", path, err)
	}
	return pid, nil
}

// reap waits for every descendant that ends: this process is a subreaper, so those
// who lost their parent come to it.
func (c *child) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			close(c.orphan)
			select {} // see spawn: this thread must not end
		case pid == c.pid:
			c.status <- status
		}
	}
}

// lookPath finds the program as a shell in the task's own environment would.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			path = value
		}
	}
	for folder := range strings.SplitSeq(path, ":") {
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(dir, folder)
		}
		file := filepath.Join(folder, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", &fs.PathError{Op: "start", Path: name, Err: fmt.Errorf("there is no such program in PATH %s", path)}
}
