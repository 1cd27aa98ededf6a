package rpc

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// recordTime is for the record of a deed's end, after whose caller may be gone.
const recordTime = 10 * time.Second

// maxDeeds is how many deeds one answer holds.
const maxDeeds = 10_000

// hands passes what people do in tasks on to the agents, and keeps the record of it.
type hands struct {
	claryv1.UnimplementedHandsServer
	replica Replica
	agents  Conns
	log     *slog.Logger
}

// both is a stream in two directions, of a server or a client.
type both[In, Out any] interface {
	Send(*Out) error
	Recv() (*In, error)
}

// Exec runs a program beside a task.
func (s *hands) Exec(stream grpc.BidiStreamingServer[claryv1.ExecInput, claryv1.ExecOutput]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil || len(start.GetArgv()) == 0 {
		return fault.New(fault.Invalid, "start.argv: is empty: name the program to run")
	}
	action := cmp.Or(start.GetAction(), "exec")
	if action != "exec" && action != "cp" {
		return fault.New(fault.Invalid, "start.action: %q is unknown: exec or cp", cluster.Clip(action))
	}
	task, err := s.find(stream.Context(), start.GetJob(), start.GetTask())
	if err != nil {
		return err
	}
	start.Task = task.ID
	result, begun := "", false
	return s.onRecord(stream.Context(), cluster.Deed{Action: action, Task: task.ID, Node: task.Allocation.Node, Detail: strings.Join(start.GetArgv(), " ")}, func(ctx context.Context) (string, error) {
		conn, err := s.agents.Conn(task.Allocation.Node)
		if err != nil {
			return "", err
		}
		agent, err := claryv1.NewTaskHandsClient(conn).Exec(ctx)
		if err == nil {
			err = agent.Send(first)
		}
		if err != nil {
			return "", agentAway(task.Allocation.Node, begun, wire.FromStatus(err))
		}
		err = relay(stream, agent, agent.CloseSend, func(output *claryv1.ExecOutput) {
			begun = true
			if code, ended := output.GetOutput().(*claryv1.ExecOutput_ExitCode); ended {
				result = fmt.Sprintf("exit code %d", code.ExitCode)
			}
		})
		return result, agentAway(task.Allocation.Node, begun, err)
	})
}

// agentAway says more of an agent that cannot be reached, or no longer.
func agentAway(node string, begun bool, err error) error {
	switch {
	case !fault.Is(err, fault.Unready):
		return err
	case begun:
		return fault.New(fault.Unready, "the connection to node %s was lost, and what ran there for you with it: %w", node, err)
	}
	return fault.New(fault.Unready, "node %s: %w", node, err)
}

// Forward connects to a port of a task.
func (s *hands) Forward(stream grpc.BidiStreamingServer[claryv1.ForwardInput, claryv1.ForwardOutput]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil || start.GetPort() < 1 || start.GetPort() > 65535 {
		return fault.New(fault.Invalid, "start.port: %d: takes 1 to 65535", start.GetPort())
	}
	task, err := s.find(stream.Context(), start.GetJob(), start.GetTask())
	if err != nil {
		return err
	}
	start.Task = task.ID
	return s.onRecord(stream.Context(), cluster.Deed{Action: "port-forward", Task: task.ID, Node: task.Allocation.Node, Detail: fmt.Sprint(start.GetPort())}, func(ctx context.Context) (string, error) {
		conn, err := s.agents.Conn(task.Allocation.Node)
		if err != nil {
			return "", err
		}
		agent, err := claryv1.NewTaskHandsClient(conn).Forward(ctx)
		if err == nil {
			err = agent.Send(first)
		}
		if err != nil {
			return "", agentAway(task.Allocation.Node, false, wire.FromStatus(err))
		}
		sent, begun := 0, false
		err = relay(stream, agent, agent.CloseSend, func(output *claryv1.ForwardOutput) {
			begun = true
			sent += len(output.GetData())
		})
		return fmt.Sprintf("%d bytes came", sent), agentAway(task.Allocation.Node, begun, err)
	})
}

// relay passes messages between a caller and an agent until the agent is done.
func relay[In, Out any](caller both[In, Out], agent both[Out, In], closeSend func() error, seen func(*Out)) error {
	go func() { // ends with the caller's stream, which ends when its method returns
		for {
			message, err := caller.Recv()
			if err == nil {
				err = agent.Send(message)
			}
			if err != nil {
				_ = closeSend()
				return
			}
		}
	}()
	for {
		message, err := agent.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wire.FromStatus(err)
		}
		seen(message)
		if err := caller.Send(message); err != nil {
			return err
		}
	}
}

// find picks the task that a person means: of the job's newest attempt, and running. They
// must own the job, or be an admin.
func (s *hands) find(ctx context.Context, job, name string) (cluster.Task, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return cluster.Task{}, err
	}
	defer snapshot.Close()
	found, ok := snapshot.Job(job)
	if !ok {
		return cluster.Task{}, noJob(job)
	}
	if err := caller(ctx).owns(found); err != nil {
		return cluster.Task{}, err
	}
	var running []cluster.Task
	var states []string
	for task := range snapshot.TasksOf(found.Name) {
		if task.Attempt != found.Attempt || !named(task, name) {
			continue
		}
		states = append(states, fmt.Sprintf("%s-%d is %s", task.Role, task.Index, task.Status.State))
		if task.Status.State == cluster.TaskRunning {
			running = append(running, task)
		}
	}
	if len(running) == 0 {
		if len(states) == 0 {
			states = []string{"the job is " + string(found.State)}
		}
		return cluster.Task{}, fault.New(fault.Conflict, "no task %q of job %s runs now: %s", cluster.Clip(name), found.Name, strings.Join(states[:min(len(states), 5)], ", "))
	}
	slices.SortFunc(running, func(a, b cluster.Task) int { // workers are what people mean
		return cmp.Or(-cmp.Compare(a.Role, b.Role), cmp.Compare(a.Index, b.Index))
	})
	return running[0], nil
}

// onRecord does a deed between the records of its begin and its end. What cannot be put on
// record is not done.
func (s *hands) onRecord(ctx context.Context, deed cluster.Deed, do func(context.Context) (string, error)) error {
	random := make([]byte, 6)
	_, _ = rand.Read(random) // never fails
	deed.User, deed.Time = caller(ctx).Name, time.Now().UnixNano()
	act, _ := ctx.Value(actKey{}).(*act)
	if act != nil { // this record is the call's own
		deed.From, deed.Request = act.deed.From, act.deed.Request
		act.recorded.Store(true)
	}
	deed.ID, deed.Detail = cluster.NewDeedID(deed.Time, hex.EncodeToString(random)), clip(deed.Detail)
	results, err := s.replica.Propose(ctx, command.Record{Changes: []command.Change{{Deed: &deed}}})
	if err != nil {
		if act != nil {
			act.recorded.Store(false)
		}
		return err
	}
	s.log.InfoContext(ctx, "a person's hands in a task", "user", deed.User, "action", deed.Action, "task", deed.Task, "detail", deed.Detail)
	done, cancel := context.WithCancel(ctx)
	result, err := do(done)
	cancel()
	switch {
	case err != nil:
		result = clip(err.Error())
	case result == "":
		result = "ended"
	}
	deed.Ended, deed.Result, deed.Outcome = time.Now().UnixNano(), result, outcomeOf(err)
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	change := command.Change{Expect: results[0].Revision, Deed: &deed}
	if _, failed := s.replica.Propose(ctx, command.Record{Changes: []command.Change{change}}); failed != nil {
		s.log.ErrorContext(ctx, "the end of a deed is not on record", "deed", deed.ID, "result", result, "error", failed)
	}
	return err
}

func clip(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > cluster.MaxDeedDetail {
		return strings.ToValidUTF8(text[:cluster.MaxDeedDetail], "")
	}
	return text
}

// Audit lists what is on record.
func (s *hands) Audit(ctx context.Context, request *claryv1.AuditRequest) (*claryv1.AuditResponse, error) {
	limit := int(request.GetLimit())
	if limit < 0 || limit > maxDeeds {
		return nil, fault.New(fault.Invalid, "limit: %d is out of range: from 0 to %d", limit, maxDeeds)
	}
	if limit == 0 {
		limit = maxDeeds
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	var deeds []*claryv1.Deed
	after := request.GetAfter()
	for deed := range snapshot.Deeds(max(cluster.NewDeedID(max(request.GetSince(), 0), ""), after)) {
		if request.GetUser() != "" && request.GetUser() != deed.User || request.GetJob() != "" && request.GetJob() != deed.Job() ||
			deed.ID == after || !isPartOf(deed.Action, request.GetWhat()) {
			continue
		}
		if after != "" && len(deeds) == limit { // who follows gets the oldest, and asks again
			break
		}
		if deeds = append(deeds, wire.DeedToProto(deed)); len(deeds) > limit {
			deeds = deeds[1:]
		}
	}
	return &claryv1.AuditResponse{Deeds: deeds}, nil
}
