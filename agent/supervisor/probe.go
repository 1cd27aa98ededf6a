package supervisor

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/probe"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// probe asks a running task that has a probe whether it serves, until the returned function is called.
// The channel is nil for a task without one.
func (t *task) probe(ctx context.Context) (news <-chan probe.News, stop func()) {
	assignment, status := t.assignment(), t.status()
	if assignment.Program.Probe == nil || isClosed(t.stop) {
		return nil, func() {}
	}
	told := make(chan probe.News)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		probe.Run(ctx, probe.Config{
			Probe: *assignment.Program.Probe, Serves: status.Healthy != 0,
			Dial: func(ctx context.Context) (net.Conn, error) { return t.s.dial(ctx, assignment) },
		}, func(n probe.News) {
			select {
			case told <- n:
			case <-ctx.Done():
			}
		})
	}()
	return told, func() { cancel(); <-done }
}

// heard takes in what a probe found. It is told first and written down after: until the task is found
// healthy nobody may use it, and every moment counts for whoever waits. It is written at all so that
// the next agent knows, and does not tell of every task at once that it does not serve.
func (t *task) heard(ctx context.Context, news probe.News) {
	if news.Failed != "" {
		t.execute(ctx, news.Failed+t.ending(ctx))
		return
	}
	status := t.status()
	status.Healthy = 0
	if news.Serves {
		status.Healthy = time.Now().UnixNano()
	}
	t.show(status)
	t.s.mu.Lock()
	entry := t.entry
	t.s.mu.Unlock()
	if err := t.s.config.Ledger.Put(entry); err != nil {
		t.s.config.Log.Error("record a task's health", "task", t.id(), "error", err)
	}
}

// endingBytes is how much of the end of a task's log goes into a reason.
const endingBytes = 500

// ending is how the task's log ends, as a part of a reason.
func (t *task) ending(ctx context.Context) string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.lastLines(ctx)), "?"))
	if text == "" {
		return "; it wrote nothing"
	}
	if len(text) > endingBytes {
		text = "…" + strings.ToValidUTF8(text[len(text)-endingBytes:], "")
	}
	return "; its log ends: " + strings.Join(strings.Split(text, "\n"), " | ")
}

// Reach connects to the port on which a running task serves: the first that it was given, or its
// program's own. The channel is closed when the task has ended. NotFound says that this node has no such
// task, Invalid that it is no server that routers ask, Unready that it does not run now.
func (s *Supervisor) Reach(ctx context.Context, id string) (net.Conn, <-chan struct{}, error) {
	s.mu.Lock()
	t := s.tasks[id]
	if t == nil {
		s.mu.Unlock()
		return nil, nil, fault.New(fault.NotFound, "task %s is not on this node", cluster.Clip(id))
	}
	assignment, state := t.entry.Assignment, t.entry.Status.State
	s.mu.Unlock()
	if assignment.Program.Probe == nil {
		return nil, nil, fault.New(fault.Invalid, "task %s is no replica of an endpoint: its ports are for people whom a coordinator knows", id)
	}
	if state != cluster.TaskRunning {
		return nil, nil, fault.New(fault.Unready, "task %s is %s", id, state)
	}
	conn, err := s.dial(ctx, assignment)
	return conn, t.over, err
}

func (s *Supervisor) dial(ctx context.Context, assignment ledger.Assignment) (net.Conn, error) {
	id, ports := assignment.Task.ID, slices.Concat(assignment.Task.Allocation.Resources.Ports, []int32{assignment.Program.Port})
	if ports[0] == 0 {
		return nil, fault.New(fault.Invalid, "task %s has no port", id)
	}
	dialer, can := s.config.Driver.(runtime.Dialer)
	if !can {
		return nil, fault.New(fault.Invalid, "this node reaches no ports of its tasks")
	}
	return dialer.Dial(ctx, id, int(ports[0]))
}
