package process

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/sandbox"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	shimLog      = "shim.log"       // what the shim itself has to complain about while its task runs
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
	switch own := spec.Isolation; {
	case spec.Image != "":
		return time.Time{}, fault.New(fault.Invalid, "task %s: this node runs no containers: image %s", spec.ID, spec.Image)
	case own != nil && own.Network == runtime.NetworkBridge:
		return time.Time{}, fault.New(fault.Invalid, "task %s: network %q is for containers", spec.ID, own.Network)
	case own != nil && d.CanIsolate() != nil:
		return time.Time{}, d.CanIsolate()
	case own != nil && spec.User == nil:
		return time.Time{}, fault.New(fault.Invalid, "task %s: a view of its own needs a user of its own", spec.ID)
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
	return d.launch(dir, spec, lock, group)
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
		User: user(spec), Sandbox: view(spec), Rlimits: rlimits(spec),
	}, false)
}

// user is whom the shim runs the task as.
func user(spec runtime.Spec) *sandbox.User {
	if spec.User == nil {
		return nil
	}
	return &sandbox.User{UID: spec.User.UID, GID: spec.User.GID, Name: spec.User.Name}
}

// view is what the task sees of the machine.
func view(spec runtime.Spec) *sandbox.Spec {
	own := spec.Isolation
	if own == nil {
		return nil
	}
	inside := &sandbox.Spec{
		Hosts: own.Hosts, Hostname: own.Hostname, Offline: own.Network == runtime.NetworkNone, Hide: own.Hide,
	}
	for _, mount := range own.Mounts {
		inside.Mounts = append(inside.Mounts, sandbox.Mount{Source: mount.Source, Target: mount.Target, ReadOnly: mount.ReadOnly})
	}
	return inside
}

// rlimits spares the node the core files of tasks that it does not trust.
func rlimits(spec runtime.Spec) []shim.Rlimit {
	if spec.User == nil {
		return nil
	}
	return []shim.Rlimit{{Resource: unix.RLIMIT_CORE}}
}

// CanIsolate tries once whether this machine lets a task have a view of its own.
func (d *Driver) CanIsolate() error { return d.isolation() }

// tryIsolation runs the shim's program in a view of its own, without a task.
func tryIsolation(program string) error {
	if os.Geteuid() != 0 {
		return fault.New(fault.Unready, "tasks cannot have a view of the machine of their own: the agent does not run as root")
	}
	spec := sandbox.Spec{Offline: true, Hostname: "clary"}
	command := exec.Command(program, shim.TryArgument)
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: spec.Flags()}
	if text, err := command.CombinedOutput(); err != nil {
		return fault.New(fault.Unready, "tasks cannot have a view of the machine of their own: %w: %s", err, strings.TrimSpace(string(text)))
	}
	return nil
}

func (d *Driver) launch(dir string, spec runtime.Spec, lock *os.File, group cgroup.Group) (time.Time, error) {
	id := spec.ID
	news, tell, err := os.Pipe()
	if err != nil {
		return time.Time{}, fault.New(fault.Internal, "start task %s: %w", id, errors.Join(err, group.Remove()))
	}
	defer news.Close() //nolint:errcheck // only read
	pid, pidfd, err := d.fork(dir, lock, tell, spec.Secrets)
	_ = tell.Close()
	if err != nil {
		return time.Time{}, fault.New(fault.Internal, "start the shim %s: %w", d.config.Shim, errors.Join(err, group.Remove()))
	}
	_ = news.SetReadDeadline(time.Now().Add(d.config.Patience))
	text, err := io.ReadAll(news)
	h := &handle{id: id, dir: dir, started: time.Now(), pidfd: pidfd, child: pid, done: make(chan struct{})}
	if err != nil { // it may start the task whenever it goes on, and nobody would know of it
		d.config.Log.Error("a shim that says nothing is killed", "task", id, "error", err)
		_ = h.signal(unix.SIGKILL)
	}
	var start shim.Start
	if shim.ReadJSON(dir, shim.StartFile, &start) == nil {
		h.started = start.Time
	}
	d.follow(h)
	if err == nil && string(text) == shim.Ready {
		return h.started, nil
	}
	<-h.done // the shim is about to end: leave nothing behind
	switch {
	case h.err != nil:
		return time.Time{}, h.err
	case h.status.Signaled(): // the task may have begun: Wait says that nobody knows
		return h.started, nil
	case h.status.ExitStatus() > shim.Failed:
		return time.Time{}, fault.New(fault.Internal, "start task %s: its shim ended with exit code %d: %s", id, h.status.ExitStatus(), lastWords(text))
	case len(text) == 0:
		return time.Time{}, fault.New(fault.Internal, "start task %s: its shim ended with exit code %d and said nothing", id, h.status.ExitStatus())
	default:
		return time.Time{}, fault.New(fault.Invalid, "%s", text)
	}
}

// maxWords is how much is told of what a shim said last.
const maxWords = 300

// lastWords are the first line of what a shim said of its end: what follows are the traces of a defect.
func lastWords(text []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.ToValidUTF8(line[:min(len(line), maxWords)], nil))
}

// fork starts the shim in a session and, where there is a v2 tree, a control group
// apart from the agent's, so that nothing that ends the agent reaches it.
func (d *Driver) fork(dir string, lock, tell *os.File, secrets []string) (pid int, pidfd *os.File, err error) {
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
	given, give, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer give.Close() //nolint:errcheck // a shim that is gone reads nothing, and that is told elsewhere
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
		Files: []uintptr{null.Fd(), complaints.Fd(), tell.Fd(), lock.Fd(), tell.Fd(), given.Fd()},
	})
	_ = given.Close() // the shim has its own copy
	if err != nil {
		return 0, nil, err
	}
	for _, secret := range secrets {
		_, _ = give.WriteString(secret + "\x00")
	}
	if fd < 0 {
		return 0, nil, errors.New("the kernel gives no pidfd: Linux 5.10 or newer is needed")
	}
	_ = syscall.SetNonblock(fd, true)
	return pid, os.NewFile(uintptr(fd), "shim"), nil
}
