package environment

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// order is a program to run that is not trusted.
type order struct {
	program     string
	arguments   []string
	environment []string
	folder      string // the only one that it may write; "" for none
	dir         string // where it starts; "" is the root
	show        string // a folder that it must see; "" for none
	uid         uint32 // whom it runs as; 0 leaves that to the runner
}

// runner runs such programs.
type runner interface {
	// begin gives a folder to whom programs for it will run as, until the release.
	begin(ctx context.Context, folder string) (order, func(), error)
	// run returns what the program wrote when it has ended; an error holds the last of it.
	run(ctx context.Context, o order) (string, error)
}

// plain runs them as another user, in a session that ends with the agent and with ctx, and
// sees to nothing else: where the machine cannot do more.
type plain struct{ uid int }

func (p plain) begin(ctx context.Context, folder string) (order, func(), error) {
	if p.uid == 0 {
		return order{folder: folder}, func() {}, nil
	}
	return order{folder: folder}, func() {}, give(ctx, folder, p.uid)
}

func (p plain) run(ctx context.Context, o order) (string, error) {
	command := exec.CommandContext(ctx, o.program, o.arguments...)
	if command.Dir = o.dir; o.dir == "" {
		command.Dir = "/"
	}
	command.Env = o.environment
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if p.uid != 0 {
		command.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(p.uid), Gid: uint32(p.uid)}
	}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 5 * time.Second
	said := &tail{}
	command.Stdout, command.Stderr = said, said
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("%w: %s", err, said)
	}
	return said.String(), nil
}

// tail keeps the last of what is written to it.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if over := len(t.text) - toldBytes; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.TrimSpace(string(bytes.ToValidUTF8(t.text, nil)))
}
