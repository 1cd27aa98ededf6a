package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/sandbox"
)

// InsideArgument makes the shim's program become a task's program, from the inside of its
// new namespaces, or another beside it: "clary-shim inside". It reads what to do from descriptor 3 and tells
// what went wrong on 4, which a program that has started closes.
const InsideArgument = "inside"

// TryArgument makes the shim's program see whether it can have a view of its own, in
// namespaces that its parent made: "clary-shim try".
const TryArgument = "try"

// Try says why not.
func Try() error {
	runtime.LockOSThread()
	user := sandbox.User{UID: 65534, GID: 65534, Name: "clary"}
	err := sandbox.Enter(sandbox.Spec{Offline: true, Hostname: "clary"}, user)
	if err == nil {
		err = sandbox.Drop(user)
	}
	return err
}

// Instructions are for a program that becomes a task, or one beside it. They may hold
// secrets, and stand in no file, argument or environment.
type Instructions struct {
	Argv    []string      `json:"argv"`
	Env     []string      `json:"env"`
	Dir     string        `json:"dir"`
	Sandbox *sandbox.Spec `json:"sandbox,omitempty"` // arrange this view, in new namespaces
	User    *sandbox.User `json:"user,omitempty"`    // nil keeps the shim's own

	Beside int          `json:"beside,omitempty"` // enter the view of this process
	Group  cgroup.Group `json:"group"`            // enter this control group
}

// Inside never returns if all goes well.
func Inside() {
	runtime.LockOSThread() // Drop changes this thread, and it is this thread that execs
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	news := os.NewFile(4, "news")
	_, _ = news.WriteString(become(os.NewFile(3, "instructions")).Error())
	os.Exit(1)
}

// become is no more once it is the program: it returns only why it could not be.
func become(instructions *os.File) error {
	text, err := io.ReadAll(instructions)
	if err != nil {
		return fmt.Errorf("read what to run: %w", err)
	}
	var todo Instructions
	if err := json.Unmarshal(text, &todo); err != nil {
		return fmt.Errorf("read what to run: %w", err)
	}
	if err := todo.Group.Join(); err != nil {
		return err
	}
	if todo.Beside != 0 {
		if err := sandbox.Join(todo.Beside); err != nil {
			return fmt.Errorf("enter the task's view: %w", err)
		}
	}
	if todo.Sandbox != nil {
		if err := sandbox.Enter(*todo.Sandbox, *todo.User); err != nil {
			return fmt.Errorf("give the task a view of its own: %w", err)
		}
	}
	// The folder is entered, and the program looked for, as the user.
	if todo.User != nil {
		if err := sandbox.Drop(*todo.User); err != nil {
			return err
		}
	}
	// A change of user has cleared this.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if err := os.Chdir(todo.Dir); err != nil {
		return fmt.Errorf("enter the working folder: %w", err)
	}
	path, err := lookPath(todo.Argv[0], todo.Env, todo.Dir)
	if err != nil {
		return err
	}
	return fmt.Errorf("start %s: %w", path, syscall.Exec(path, todo.Argv, todo.Env))
}

// forkInside starts the task's program through a fork of this one, in namespaces of its
// own, and returns when it has become the program.
func (c *child) forkInside(spec Spec, secrets []string, files []uintptr, attr *syscall.SysProcAttr) (int, error) {
	todo := Instructions{
		Argv: spec.Argv, Env: append(spec.Env[:len(spec.Env):len(spec.Env)], secrets...), Dir: spec.Dir, Sandbox: spec.Sandbox, User: spec.User,
	}
	if spec.Sandbox != nil {
		attr.Cloneflags = spec.Sandbox.Flags()
	}
	text, err := json.Marshal(todo)
	if err != nil {
		return 0, err
	}
	instructions, tell, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer instructions.Close() //nolint:errcheck // only read
	news, problem, err := os.Pipe()
	if err != nil {
		return 0, errors.Join(err, tell.Close())
	}
	defer news.Close() //nolint:errcheck // only read
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"clary-shim", InsideArgument}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Sys: attr,
		Files: append(files, instructions.Fd(), problem.Fd()),
	})
	_ = problem.Close()
	if err != nil {
		return 0, errors.Join(fmt.Errorf("start %s: %w", spec.Argv[0], err), tell.Close())
	}
	_, err = tell.Write(text)
	_ = tell.Close()
	said, _ := io.ReadAll(news)
	switch {
	case len(said) > 0:
		err = errors.New(string(said))
	case err != nil:
		err = fmt.Errorf("start %s: its first process ended at once: %w", spec.Argv[0], err)
	default:
		return pid, nil
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	var status syscall.WaitStatus
	for {
		if _, wait := syscall.Wait4(pid, &status, 0, nil); !errors.Is(wait, syscall.EINTR) {
			return 0, err
		}
	}
}

// readSecrets takes the variables that stand in no file, until the agent closes the pipe.
func readSecrets(from *os.File) ([]string, error) {
	if from == nil {
		return nil, nil
	}
	defer from.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(from)
	if err != nil {
		return nil, fmt.Errorf("read the task's secrets: %w", err)
	}
	if len(text) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), nil
}
