package process

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	shimLog      = "shim.log"       // what the shim itself has to complain about
	readyTimeout = 30 * time.Second // for a shim to say that the task runs
)

// visibleDevices tells CUDA which devices there are; empty means none.
const visibleDevices = "CUDA_VISIBLE_DEVICES="

// Start starts a shim and returns when it says that the task runs.
//
// The folder's lock is taken here and inherited by the shim, so that there is no
// instant at which a shim lives unnoticed by an agent that comes after.
func (d *Driver) Start(_ context.Context, spec runtime.Spec) (time.Time, error) {
	dir, err := d.folder(spec.ID)
	if err != nil {
		return time.Time{}, err
	}
	if len(spec.Argv) == 0 {
		return time.Time{}, fault.New(fault.Invalid, "task %s: no command: name the program to run", spec.ID)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return time.Time{}, fault.New(fault.Internal, "start task %s: %w", spec.ID, err)
	}
	lock, err := takeLock(dir)
	if err != nil {
		return time.Time{}, fault.New(fault.Conflict, "task %s runs already: %w", spec.ID, err)
	}
	defer lock.Close() //nolint:errcheck // the shim has its own copy
	if _, err := os.Stat(filepath.Join(dir, shim.StartFile)); err == nil {
		return time.Time{}, fault.New(fault.Conflict, "task %s was started before: a new run needs a new attempt", spec.ID)
	}
	group, err := d.instruct(dir, spec)
	if err != nil {
		return time.Time{}, errors.Join(fault.New(fault.Internal, "start task %s: %w", spec.ID, err), group.Remove())
	}
	return d.launch(dir, spec.ID, lock, group)
}

// instruct writes the shim's instructions.
func (d *Driver) instruct(dir string, spec runtime.Spec) (cgroup.Group, error) {
	group, err := d.config.Groups.Create(filepath.Base(dir), cgroup.Limits{
		CPU: spec.Limits.MilliCPU, CPUHard: spec.Limits.HardCPU, Memory: spec.Limits.Memory, Pids: spec.Limits.Pids,
	})
	if err != nil {
		return group, err
	}
	if spec.Exclusive {
		if err := shim.SetLease(dir, shim.Now()+spec.Lease); err != nil {
			return group, err
		}
	}
	if spec.LogBytes == 0 {
		spec.LogBytes = runtime.DefaultLogBytes
	}
	// Of two entries of one name most programs see the first: the task's own goes.
	env := slices.DeleteFunc(slices.Clone(spec.Env), func(entry string) bool { return strings.HasPrefix(entry, visibleDevices) })
	env = append(env, visibleDevices+strings.Join(spec.Devices, ","))
	return group, shim.WriteJSON(dir, shim.SpecFile, shim.Spec{
		Argv: spec.Argv, Env: env, Dir: spec.Dir, Group: group, LogBytes: spec.LogBytes,
		MaxRuntime: spec.MaxRuntime, Grace: spec.Grace, Exclusive: spec.Exclusive,
	}, false)
}

func (d *Driver) launch(dir, id string, lock *os.File, group cgroup.Group) (time.Time, error) {
	news, tell, err := os.Pipe()
	if err != nil {
		return time.Time{}, fault.New(fault.Internal, "start task %s: %w", id, errors.Join(err, group.Remove()))
	}
	defer news.Close() //nolint:errcheck // only read
	pid, pidfd, err := d.fork(dir, lock, tell)
	_ = tell.Close()
	if err != nil {
		return time.Time{}, fault.New(fault.Internal, "start the shim %s: %w", d.config.Shim, errors.Join(err, group.Remove()))
	}
	_ = news.SetReadDeadline(time.Now().Add(readyTimeout))
	text, err := io.ReadAll(news)
	h := &handle{id: id, dir: dir, started: time.Now(), pidfd: pidfd, child: pid, done: make(chan struct{})}
	var start shim.Start
	if shim.ReadJSON(dir, shim.StartFile, &start) == nil {
		h.started = start.Time
	}
	d.follow(h)
	if string(text) == "ok" {
		return h.started, nil
	}
	if err == nil {
		<-h.done // the shim is about to end: leave nothing behind
	}
	switch {
	case err != nil:
		return time.Time{}, fault.New(fault.Internal, "start task %s: the shim says nothing: %w", id, err)
	case len(text) == 0:
		return time.Time{}, fault.New(fault.Internal, "start task %s: the shim ended at once; see %s", id, filepath.Join(dir, shimLog))
	default:
		return time.Time{}, fault.New(fault.Invalid, "%s", text)
	}
}

// fork starts the shim in a session and, where there is a v2 tree, a control group
// apart from the agent's, so that nothing that ends the agent reaches it.
func (d *Driver) fork(dir string, lock, tell *os.File) (pid int, pidfd *os.File, err error) {
	complaints, err := os.OpenFile(filepath.Join(dir, shimLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, nil, err
	}
	defer complaints.Close() //nolint:errcheck // the shim has its own copy
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close() //nolint:errcheck // only read
	fd := -1
	attr := &syscall.SysProcAttr{Setsid: true, PidFD: &fd}
	if shelter := d.config.Groups.Shelter(); shelter != "" {
		folder, err := os.Open(shelter)
		if err != nil {
			return 0, nil, err
		}
		defer folder.Close() //nolint:errcheck // only read
		attr.UseCgroupFD, attr.CgroupFD = true, int(folder.Fd())
	}
	pid, err = syscall.ForkExec(d.config.Shim, []string{"clary-shim", dir}, &syscall.ProcAttr{
		Dir: "/", Sys: attr, Env: []string{"GOMAXPROCS=2", "GOGC=50"},
		Files: []uintptr{null.Fd(), complaints.Fd(), complaints.Fd(), lock.Fd(), tell.Fd()},
	})
	if err != nil {
		return 0, nil, err
	}
	if fd < 0 {
		return 0, nil, errors.New("the kernel gives no pidfd: Linux 5.10 or newer is needed")
	}
	_ = syscall.SetNonblock(fd, true)
	return pid, os.NewFile(uintptr(fd), "shim"), nil
}
