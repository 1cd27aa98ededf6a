package container

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/sandbox"
	"github.com/clary-ml/clary/internal/fault"
)

// endPatience is for the engine to say how a program ended whose output is closed.
const endPatience = 5 * time.Second

// alive finds a running task's container.
func (d *Driver) alive(ctx context.Context, id string) (*handle, state, error) {
	h, err := d.find(id)
	if err != nil {
		return nil, state{}, err
	}
	s, err := d.state(ctx, h.name)
	if fault.Is(err, fault.NotFound) || err == nil && !s.running {
		err = fault.New(fault.Conflict, "task %s does not run any more", id)
	}
	return h, s, err
}

// Exec runs a program in the task's container, as its user. It ends with the container, and
// is killed when ctx ends.
func (d *Driver) Exec(ctx context.Context, id string, command runtime.Command, streams runtime.Streams) (int, error) {
	if len(command.Argv) == 0 {
		return 0, fault.New(fault.Invalid, "no command: name the program to run")
	}
	h, _, err := d.alive(ctx, id)
	if err != nil {
		return 0, err
	}
	made, err := d.engine.ExecCreate(ctx, h.name, moby.ExecCreateOptions{
		TTY: command.Terminal, AttachStdin: streams.Stdin != nil, AttachStdout: true, AttachStderr: true,
		Env: command.Env, WorkingDir: command.Dir, Cmd: command.Argv,
	})
	if err != nil {
		return 0, fault.New(fault.Conflict, "run a program beside task %s: %w", id, err)
	}
	conn, err := d.engine.ExecAttach(ctx, made.ID, moby.ExecAttachOptions{TTY: command.Terminal})
	if err != nil {
		return 0, fault.New(fault.Invalid, "run %s beside task %s: %w", command.Argv[0], id, err)
	}
	defer conn.Close()
	ended := make(chan struct{})
	defer close(ended)
	if command.Terminal {
		go d.resize(ctx, made.ID, command.Sizes, ended)
	}
	if streams.Stdin != nil {
		go func() { // ends with Stdin, or with the connection
			_, _ = io.Copy(conn.Conn, streams.Stdin)
			if !command.Terminal {
				_ = conn.CloseWrite()
			}
		}()
	}
	shown := make(chan error, 1)
	go func() {
		stdout, stderr := orDiscard(streams.Stdout), orDiscard(streams.Stderr)
		var err error
		if command.Terminal {
			_, err = io.Copy(stdout, conn.Reader)
		} else {
			_, err = stdcopy.StdCopy(stdout, stderr, conn.Reader)
		}
		shown <- err
	}()
	select {
	case <-shown: // how it ended is asked next
		return d.execCode(ctx, id, made.ID, command.Argv[0])
	case <-h.done:
	case <-ctx.Done():
		d.killExec(made.ID)
	}
	conn.Close()
	<-shown
	return 0, fault.New(fault.Conflict, "the program was ended, with its caller or its task")
}

// execCode asks how a program ended.
func (d *Driver) execCode(ctx context.Context, id, exec, program string) (int, error) {
	for deadline := time.Now().Add(endPatience); ; {
		told, err := d.engine.ExecInspect(ctx, exec, moby.ExecInspectOptions{})
		if err == nil && !told.Running {
			// As shells do, an engine says 126 or 127 for what could not be started, and then
			// there never was a process.
			if told.PID == 0 && (told.ExitCode == 126 || told.ExitCode == 127) {
				return 0, fault.New(fault.Invalid, "start %s beside task %s: there is no such program, or it may not be run", program, id)
			}
			return told.ExitCode, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return 0, fault.New(fault.Conflict, "nobody knows how the program beside task %s ended: %w", id, errors.Join(err, ctx.Err()))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// killExec ends a program whose caller is gone: an engine lets it run on.
func (d *Driver) killExec(exec string) {
	ctx, cancel := context.WithTimeout(d.ctx, endPatience)
	defer cancel()
	if told, err := d.engine.ExecInspect(ctx, exec, moby.ExecInspectOptions{}); err == nil && told.Running && told.PID > 1 {
		_ = syscall.Kill(told.PID, syscall.SIGKILL)
	}
}

func (d *Driver) resize(ctx context.Context, exec string, sizes <-chan runtime.Size, ended <-chan struct{}) {
	for {
		select {
		case size, more := <-sizes:
			if !more {
				return
			}
			_, _ = d.engine.ExecResize(ctx, exec, moby.ExecResizeOptions{Height: uint(size.Rows), Width: uint(size.Columns)})
		case <-ended:
			return
		}
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// Dial connects to a port on which the task listens, wherever its network is.
func (d *Driver) Dial(ctx context.Context, id string, port int) (net.Conn, error) {
	h, s, err := d.alive(ctx, id)
	if err != nil {
		return nil, err
	}
	if port < 1 || port > 65535 {
		return nil, fault.New(fault.Invalid, "port %d: takes 1 to 65535", port)
	}
	answer, err := d.engine.ContainerInspect(ctx, h.name, moby.ContainerInspectOptions{})
	if err != nil {
		return nil, fault.New(fault.Unready, "ask for the container of task %s: %w", id, err)
	}
	var conn net.Conn
	dial := func(host string) (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		return err
	}
	err = sandbox.InNetwork(s.pid, func() error { return dial("127.0.0.1") })
	if address := cmp.Or(addressOf(answer.Container), d.config.Host); err != nil && address != "" {
		err = dial(address)
	}
	if err != nil {
		return nil, fault.New(fault.Unready, "nobody listens on port %d of task %s: %w", port, id, err)
	}
	return conn, nil
}

// addressOf is a container's own address, "" if it has none.
func addressOf(c container.InspectResponse) string {
	if c.NetworkSettings == nil {
		return ""
	}
	for _, endpoint := range c.NetworkSettings.Networks {
		if endpoint != nil && endpoint.IPAddress.IsValid() {
			return endpoint.IPAddress.String()
		}
	}
	return ""
}
