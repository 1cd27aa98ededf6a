package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator"
	"github.com/clary-ml/clary/internal/fault"
)

// devPorts are the loopback ports of `clary dev`, counted from --port.
const (
	devServer = iota
	devServerGossip
	devStore
	devAgent
	devAgentGossip
	devServe
	devServerMetrics
	devAgentMetrics
)

// dev is a whole cluster on this machine: one coordinator and one agent as children of
// this process.
type dev struct {
	binary   string
	data     string
	port     int
	simulate string
	logs     memberFlags
	out, err io.Writer
}

func newDevCommand() *cobra.Command {
	d := dev{}
	command := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine, for trying things",
		Long: "Run a coordinator and an agent on loopback, log this user in, and keep going until Ctrl-C. What the cluster\n" +
			"knows is kept in --data between runs.",
		Example: "  clary dev\n  clary dev --data /tmp/clary --simulate-gpus 8xA100",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			var err error
			if d.binary, err = os.Executable(); err != nil {
				return err
			}
			d.out, d.err = command.OutOrStdout(), command.ErrOrStderr()
			return d.run(command.Context())
		},
	}
	flags := command.Flags()
	flags.StringVar(&d.data, "data", devData(), "folder of everything that lasts")
	flags.StringVar(&d.logs.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&d.logs.format, "log-format", "text", "text or json")
	flags.IntVar(&d.port, "port", 7470, "first of the loopback ports to use")
	flags.StringVar(&d.simulate, "simulate-gpus", "", "offer GPUs that do not exist, like 8xA100")
	return command
}

// devData is root's apart from its home, which tasks, being other users, could not enter.
func devData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/clary-dev"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ".clary/dev"
	}
	return filepath.Join(home, ".clary", "dev")
}

func (d *dev) address(which int) string {
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(d.port+which))
}

// free sees that nobody listens at an address.
func free(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fault.New(fault.Invalid, "--port: %w: another clary dev? Name the first of other ports, as in --port 7570", err)
	}
	return l.Close()
}

// run starts both processes and waits: for Ctrl-C, or for one of them to end by itself.
func (d *dev) run(ctx context.Context) error {
	if _, err := d.logs.logger(); err != nil {
		return err
	}
	if err := os.MkdirAll(d.data, 0o711); err != nil { // tasks are other users, and reach their Python through it
		return fault.New(fault.Invalid, "--data: %w", err)
	}
	for which := devServer; which <= devAgentMetrics; which++ {
		if err := free(d.address(which)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := d.child(ctx, "server", d.address(devServerMetrics), "server", "--id", "dev", "--data", d.path("server"), "--listen", d.address(devServer),
		"--gossip", d.address(devServerGossip), "--object-store-listen", d.address(devStore),
		"--serve-listen", d.address(devServe), "--serve-plaintext")
	if err := d.login(ctx, server); err != nil {
		return errors.Join(err, stopped(cancel, server))
	}
	args := []string{
		"agent", "--id", "dev", "--data", d.path("agent"), "--address", "127.0.0.1", "--listen", d.address(devAgent), "--gossip", d.address(devAgentGossip),
		"--join", d.address(devServer), "--token-file", d.path("join.token"),
	}
	if d.simulate != "" {
		args = append(args, "--simulate-gpus", d.simulate)
	}
	agent := d.child(ctx, "agent", d.address(devAgentMetrics), args...)
	fmt.Fprintf(d.out, "A cluster runs on this machine, logs in %s; endpoints answer at http://%s. In another terminal:\n\n  clary nodes\n  clary run -- echo hello\n\nCtrl-C stops it.\n", d.data, d.address(devServe))
	select {
	case <-ctx.Done():
		return stopped(cancel, server, agent)
	case err := <-server:
		return errors.Join(fmt.Errorf("the server ended by itself (%v): see %s", err, d.path("server.log")), stopped(cancel, agent))
	case err := <-agent:
		return errors.Join(fmt.Errorf("the agent ended by itself (%v): see %s", err, d.path("agent.log")), stopped(cancel, server))
	}
}

func (d *dev) path(name string) string { return filepath.Join(d.data, name) }

// child starts one process, and returns where its end is told once, and from then on nil. It is
// asked to end when ctx does, and dies with this process.
func (d *dev) child(ctx context.Context, name, metrics string, args ...string) <-chan error {
	ended := make(chan error, 1)
	log, err := os.OpenFile(d.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		ended <- err
		close(ended)
		return ended
	}
	command := exec.CommandContext(ctx, d.binary, append(args, "--log-level", d.logs.logLevel, "--log-format", d.logs.format, "--metrics-listen", metrics)...)
	command.Stdout, command.Stderr = log, log
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 20 * time.Second
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	go func() { // owned by run, which receives its one message
		defer log.Close()
		defer close(ended)
		ended <- command.Run()
	}()
	return ended
}

// stopped asks the children to end and waits for them.
func stopped(cancel context.CancelFunc, children ...<-chan error) error {
	cancel()
	for _, child := range children {
		<-child // it was told to end: how it did says nothing
	}
	return nil
}

// login waits for the coordinator, stores a context for this user, and makes the
// agent's join token on the first run.
func (d *dev) login(ctx context.Context, server <-chan error) error {
	token := d.path(filepath.Join("server", coordinator.AdminTokenFile))
	for {
		_, err := os.Stat(token)
		if err == nil && d.clary(ctx, io.Discard, "login", d.address(devServer), "--name", "dev", "--ca", d.path("server/tls/ca.pem"), "--token-file", token) == nil {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-server:
			return fmt.Errorf("the server ended by itself (%w): see %s", err, d.path("server.log"))
		case <-time.After(100 * time.Millisecond):
		}
	}
	if _, err := os.Stat(d.path("agent/member.json")); err == nil {
		return nil
	}
	_ = os.Remove(d.path("join.token"))
	return d.clary(ctx, d.err, "token", "create", "--join", cluster.RoleAgent, "--token-file", d.path("join.token"))
}

func (d *dev) clary(ctx context.Context, problems io.Writer, args ...string) error {
	command := exec.CommandContext(ctx, d.binary, args...)
	command.Stderr = problems
	return command.Run()
}
