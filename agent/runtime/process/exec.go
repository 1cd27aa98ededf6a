package process

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/sandbox"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
)

// drainTime is for what a program beside a task left behind to close its output.
const drainTime = time.Second

// inhabitant finds a running task's process, and what it was told.
func (d *Driver) inhabitant(id string) (*handle, shim.Start, shim.Spec, error) {
	var start shim.Start
	var spec shim.Spec
	h, err := d.find(id)
	if err != nil {
		return nil, start, spec, err
	}
	err = errors.Join(shim.ReadJSON(h.dir, shim.StartFile, &start), shim.ReadJSON(h.dir, shim.SpecFile, &spec))
	if h.ended() || !start.Alive() {
		return nil, start, spec, fault.New(fault.Conflict, "task %s does not run any more", id)
	}
	if err != nil {
		return nil, start, spec, fault.New(fault.Internal, "task %s: %w", id, err)
	}
	return h, start, spec, nil
}

// Exec runs a program with the task's user, view, limits and environment. It ends with
// ctx and with the task. A Stdin that is still being read when Exec returns is read no
// more after its next byte.
func (d *Driver) Exec(ctx context.Context, id string, command runtime.Command, streams runtime.Streams) (int, error) {
	if len(command.Argv) == 0 {
		return 0, fault.New(fault.Invalid, "no command: name the program to run")
	}
	h, start, spec, err := d.inhabitant(id)
	if err != nil {
		return 0, err
	}
	own, err := os.ReadFile("/proc/" + strconv.Itoa(start.Pid) + "/environ")
	if err != nil {
		return 0, fault.New(fault.Conflict, "task %s does not run any more: %w", id, err)
	}
	instructions := shim.Instructions{
		Argv: command.Argv, Env: mergeEnv(strings.Split(string(own), "\x00"), command.Env),
		Dir: cmp.Or(command.Dir, spec.Dir), User: spec.User, Group: spec.Group,
	}
	if spec.Sandbox != nil {
		instructions.Beside = start.Pid
	}
	text, err := json.Marshal(instructions)
	if err != nil {
		return 0, fault.New(fault.Internal, "run a program beside task %s: %w", id, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	defer func() { cancel(); <-watched }()
	go func() {
		defer close(watched)
		select {
		case <-h.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	program := exec.CommandContext(ctx, d.config.Shim, shim.InsideArgument)
	program.Dir, program.Env = "/", []string{"GOMAXPROCS=1"}
	program.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	program.WaitDelay = drainTime
	program.Cancel = func() error { return syscall.Kill(-program.Process.Pid, syscall.SIGKILL) }
	if command.Terminal {
		return d.inTerminal(program, command, streams, text, spec.User)
	}
	program.Stdout, program.Stderr = streams.Stdout, streams.Stderr
	if streams.Stdin != nil {
		input, err := program.StdinPipe()
		if err != nil {
			return 0, fault.New(fault.Internal, "run a program beside task %s: %w", id, err)
		}
		// It ends with Stdin; a program that has ended reads nothing, which ends it too.
		go func() {
			_, _ = io.Copy(input, streams.Stdin)
			_ = input.Close()
		}()
	}
	if err := launch(program, text); err != nil {
		return 0, err
	}
	return exitCode(program)
}

// launch starts the shim's program and returns when it has become the one that was asked
// for.
func launch(program *exec.Cmd, instructions []byte) error {
	given, give, err := os.Pipe()
	if err != nil {
		return fault.New(fault.Internal, "start %s: %w", program.Path, err)
	}
	defer give.Close() //nolint:errcheck // closed before; once more does no harm
	news, tell, err := os.Pipe()
	if err != nil {
		return fault.New(fault.Internal, "start %s: %w", program.Path, errors.Join(err, given.Close()))
	}
	defer news.Close() //nolint:errcheck // only read
	program.ExtraFiles = []*os.File{given, tell}
	err = program.Start()
	_, _ = given.Close(), tell.Close()
	if err != nil {
		return fault.New(fault.Internal, "start %s: %w", program.Path, err)
	}
	_, err = give.Write(instructions)
	_ = give.Close()
	said, _ := io.ReadAll(news)
	if err == nil && len(said) == 0 {
		return nil
	}
	_ = program.Process.Kill()
	_ = program.Wait()
	if len(said) > 0 {
		return fault.New(fault.Invalid, "%s", said)
	}
	return fault.New(fault.Internal, "start %s: %w", program.Path, err)
}

func exitCode(program *exec.Cmd) (int, error) {
	err := program.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return 0, fault.New(fault.Conflict, "the program was ended: %w", err)
	}
	status, ok := program.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return program.ProcessState.ExitCode(), nil
}

// inTerminal runs the program with a terminal of its own.
func (d *Driver) inTerminal(program *exec.Cmd, command runtime.Command, streams runtime.Streams, instructions []byte, user *sandbox.User) (int, error) {
	screen, tty, err := pty.Open()
	if err != nil {
		return 0, fault.New(fault.Internal, "open a terminal: %w", err)
	}
	defer screen.Close() //nolint:errcheck // nothing is written any more
	if user != nil {
		if err := tty.Chown(int(user.UID), int(user.GID)); err != nil {
			return 0, fault.New(fault.Internal, "open a terminal: %w", errors.Join(err, tty.Close()))
		}
	}
	program.Stdin, program.Stdout, program.Stderr = tty, tty, tty
	program.SysProcAttr.Setctty = true
	select {
	case size := <-command.Sizes:
		resize(screen, size)
	default:
	}
	err = launch(program, instructions)
	_ = tty.Close()
	if err != nil {
		return 0, err
	}
	shown, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends with the last who has the terminal open, or when it is closed below
		defer close(shown)
		_, _ = io.Copy(orDiscard(streams.Stdout), screen)
	}()
	go func() {
		for {
			select {
			case size, more := <-command.Sizes:
				if !more {
					return
				}
				resize(screen, size)
			case <-ended:
				return
			}
		}
	}()
	if streams.Stdin != nil {
		go func() { _, _ = io.Copy(screen, streams.Stdin) }() // ends as in Exec
	}
	code, err := exitCode(program)
	close(ended)
	select {
	case <-shown:
	case <-time.After(drainTime):
		_ = screen.SetReadDeadline(time.Now())
		<-shown
	}
	return code, err
}

func resize(screen *os.File, size runtime.Size) {
	_ = pty.Setsize(screen, &pty.Winsize{Rows: size.Rows, Cols: size.Columns})
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// mergeEnv is a task's environment with some variables replaced.
func mergeEnv(own, more []string) []string {
	named := func(entry string) string { name, _, _ := strings.Cut(entry, "="); return name }
	own = slices.DeleteFunc(own, func(entry string) bool {
		return entry == "" || slices.ContainsFunc(more, func(other string) bool { return named(other) == named(entry) })
	})
	return append(own, more...)
}

// Dial connects to a port on which the task listens: in its own network if it has one,
// on this machine's loopback otherwise.
func (d *Driver) Dial(ctx context.Context, id string, port int) (net.Conn, error) {
	_, start, spec, err := d.inhabitant(id)
	if err != nil {
		return nil, err
	}
	if port < 1 || port > 65535 {
		return nil, fault.New(fault.Invalid, "port %d: takes 1 to 65535", port)
	}
	var conn net.Conn
	dial := func() (err error) {
		// Of one address the socket is made by this goroutine, on this thread.
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		return err
	}
	if spec.Sandbox != nil && spec.Sandbox.Offline {
		err = sandbox.InNetwork(start.Pid, dial)
	} else if err = dial(); err != nil && d.config.Host != "" {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(d.config.Host, strconv.Itoa(port)))
	}
	if err != nil {
		return nil, fault.New(fault.Unready, "nobody listens on port %d of task %s: %w", port, id, err)
	}
	return conn, nil
}
