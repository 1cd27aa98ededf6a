// Package jobs has the commands of jobs: run, train, submit, watch, see why they wait, and end them.
package jobs

import (
	"context"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

func (a app) execCommand() *cobra.Command {
	var request client.ExecRequest
	var noTerminal bool
	command := &cobra.Command{
		Use:   "exec JOB [flags] -- PROGRAM [ARGUMENT...]",
		Short: "Run a program beside a running task, in its view of the machine",
		Long: "Run a program beside a running task: with its user, folders, environment and limits. From a terminal it gets\n" +
			"a terminal. Clary exits as the program did; Ctrl-C, or the task's end, ends it. Every use is on record.",
		Example: "  clary exec digits -- sh\n  clary exec digits --task worker-1 -- nvidia-smi\n  tar -c . | clary exec digits -- tar -x -C /tmp",
		Args:    shell.Takes("JOB", "PROGRAM..."),
	}
	flags := command.Flags()
	flags.SetInterspersed(true)
	flags.StringVar(&request.Task, "task", "", "worker-1, a role, or a whole ID (default: the first that runs)")
	flags.StringArrayVarP(&request.Env, "env", "e", nil, "one more variable, as KEY=VALUE")
	flags.StringVar(&request.Dir, "dir", "", "working folder (default: the task's own)")
	flags.BoolVarP(&noTerminal, "no-tty", "T", false, "give it no terminal")
	command.ValidArgsFunction = a.CompleteJobs()
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		request.Job, request.Argv = args[0], args[1:]
		request.Stdin, request.Stdout, request.Stderr = a.In, a.Out, a.Err
		if input, ok := a.In.(*os.File); ok && !noTerminal && term.IsTerminal(int(input.Fd())) {
			restore, err := a.becomeTerminal(input, &request)
			if err != nil {
				return err
			}
			defer restore()
		}
		code, err := c.Exec(ctx, request)
		if err != nil {
			return err
		}
		if code != 0 {
			return shell.Exitf(code, "")
		}
		return nil
	})
	return command
}

// becomeTerminal hands every key on as it is pressed, and tells of new sizes.
func (a app) becomeTerminal(input *os.File, request *client.ExecRequest) (restore func(), err error) {
	before, err := term.MakeRaw(int(input.Fd()))
	if err != nil {
		return nil, fault.New(fault.Invalid, "the terminal cannot be handed on: %w: use --no-tty", err)
	}
	if name := a.Getenv("TERM"); name != "" {
		request.Env = append(request.Env, "TERM="+name)
	}
	sizes := make(chan client.TerminalSize, 1)
	request.Terminal, request.Sizes = true, sizes
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	changed <- syscall.SIGWINCH
	var watching sync.WaitGroup
	over := make(chan struct{})
	tell := func() {
		if columns, rows, err := term.GetSize(int(input.Fd())); err == nil {
			select {
			case sizes <- client.TerminalSize{Rows: uint16(rows), Columns: uint16(columns)}:
			case <-over:
			}
		}
	}
	<-changed
	tell()
	watching.Go(func() {
		for {
			select {
			case <-changed:
				tell()
			case <-over:
				return
			}
		}
	})
	return func() {
		signal.Stop(changed)
		close(over)
		watching.Wait()
		_ = term.Restore(int(input.Fd()), before)
	}, nil
}

func (a app) attachCommand() *cobra.Command {
	var request client.LogRequest
	command := &cobra.Command{
		Use:   "attach JOB [TASK]",
		Short: "Show what a running job writes from now on",
		Long: "Show the last lines that a running job wrote, and what it writes from now on, until it ends or Ctrl-C, which\n" +
			"leaves the job alone. Tasks read no input: to talk to one, run a program beside it with clary exec.",
		Example:           "  clary attach digits\n  clary attach digits worker-1",
		Args:              shell.Takes("JOB", "[TASK]"),
		ValidArgsFunction: a.CompleteJobs(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			request.Job, request.Follow, request.Tail = args[0], true, 10
			if len(args) > 1 {
				request.Task = args[1]
			}
			return a.ShowLogs(ctx, c, request, false)
		}),
	}
	return command
}

func (a app) portForwardCommand() *cobra.Command {
	var task, listen string
	command := &cobra.Command{
		Use:   "port-forward JOB [LOCAL:]REMOTE...",
		Short: "Reach ports of a running task from this machine",
		Long: "Listen on ports of this machine and connect whoever comes to ports of a running task, until Ctrl-C. Every\n" +
			"connection is on record.",
		Example:           "  clary port-forward digits 6006\n  clary port-forward notebook 8080:8888 --task worker-0",
		Args:              shell.Takes("JOB", "[LOCAL:]REMOTE..."),
		ValidArgsFunction: a.CompleteJobs(),
	}
	command.Flags().StringVar(&task, "task", "", "worker-1, a role, or a whole ID (default: the first that runs)")
	command.Flags().StringVar(&listen, "listen", "127.0.0.1", "address of this machine to listen on")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		if _, err := c.Job(ctx, args[0]); err != nil {
			return err
		}
		var listeners []net.Listener
		defer func() {
			for _, listener := range listeners {
				_ = listener.Close()
			}
		}()
		var serving sync.WaitGroup
		for _, text := range args[1:] {
			local, remote, err := portPair(text)
			if err != nil {
				return err
			}
			listener, err := net.Listen("tcp", net.JoinHostPort(listen, strconv.Itoa(local)))
			if err != nil {
				return fault.New(fault.Invalid, "%s: %w", text, err)
			}
			listeners = append(listeners, listener)
			a.Note("%s is port %d of %s", listener.Addr(), remote, args[0])
			serving.Go(func() { a.forward(ctx, c, listener, args[0], task, remote) })
		}
		<-ctx.Done()
		for _, listener := range listeners {
			_ = listener.Close()
		}
		serving.Wait()
		return ctx.Err()
	})
	return command
}

// forward serves one listener until it is closed.
func (a app) forward(ctx context.Context, c *client.Client, listener net.Listener, job, task string, port int) {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		open.Go(func() {
			if err := c.Forward(ctx, job, task, port, conn, nil); err != nil && ctx.Err() == nil {
				a.Note("clary: port %d: %v", port, err)
			}
		})
	}
}

// portPair reads "8080:80", or "80" for the same on both sides.
func portPair(text string) (local, remote int, err error) {
	left, right, two := strings.Cut(text, ":")
	if !two {
		right = left
	}
	for _, part := range []struct {
		text string
		into *int
		min  int
	}{{left, &local, 0}, {right, &remote, 1}} {
		n, err := strconv.Atoi(part.text)
		if err != nil || n < part.min || n > 65535 {
			return 0, 0, fault.New(fault.Invalid, "%q is not [LOCAL:]REMOTE with ports from 1 to 65535, like 8080:80", text)
		}
		*part.into = n
	}
	return local, remote, nil
}
