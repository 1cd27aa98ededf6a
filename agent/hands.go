package agent

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

const (
	maxPrograms  = 64       // beside tasks of a node at a time
	maxForwards  = 512      // connections to ports of tasks of a node at a time
	forwardChunk = 32 << 10 // bytes
)

// taskHands lets coordinators reach into tasks, in the name of people whom they know.
type taskHands struct {
	claryv1.UnimplementedTaskHandsServer
	agent              *agent
	programs, forwards chan struct{}
}

func newTaskHands(a *agent) *taskHands {
	return &taskHands{agent: a, programs: make(chan struct{}, maxPrograms), forwards: make(chan struct{}, maxForwards)}
}

// place takes one of so many.
func place(places chan struct{}, what string) (leave func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
		return nil, fault.New(fault.Exhausted, "%d %s of people are open on this node: end some", cap(places), what)
	}
}

// Exec runs a program beside a task until it ends, its caller is gone or the task ends.
func (s *taskHands) Exec(stream grpc.BidiStreamingServer[claryv1.ExecInput, claryv1.ExecOutput]) error {
	return wire.ToStatus(s.exec(stream))
}

func (s *taskHands) exec(stream grpc.BidiStreamingServer[claryv1.ExecInput, claryv1.ExecOutput]) error {
	leave, err := place(s.programs, "programs")
	if err != nil {
		return err
	}
	defer leave()
	execer, ok := s.agent.driver.(runtime.Execer)
	if !ok {
		return fault.New(fault.Invalid, "this node runs no programs beside its tasks")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fault.New(fault.Invalid, "message: the first must be a start")
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	stdin, typed := io.Pipe()
	sizes := make(chan runtime.Size, 1)
	if size := start.GetSize(); size != nil {
		sizes <- sizeOf(size)
	}
	go func() { // ends with the stream, which ends when this method returns
		for {
			input, err := stream.Recv()
			if err != nil {
				_ = typed.CloseWithError(io.EOF)
				if !errors.Is(err, io.EOF) {
					cancel() // whoever typed is gone
				}
				return
			}
			if end := input.GetStdinEnd(); end {
				_ = typed.Close()
			}
			if data := input.GetStdin(); len(data) > 0 {
				_, _ = typed.Write(data) // a program that reads no more is no error
			}
			if size := input.GetSize(); size != nil {
				select {
				case sizes <- sizeOf(size):
				case <-ctx.Done():
				}
			}
		}
	}()
	output := &execOutput{stream: stream}
	if err := output.send(&claryv1.ExecOutput{Output: &claryv1.ExecOutput_Started{Started: &claryv1.HandsStarted{Task: start.GetTask(), Node: s.agent.config.ID}}}); err != nil {
		return err
	}
	code, err := execer.Exec(ctx, start.GetTask(), runtime.Command{
		Argv: start.GetArgv(), Env: start.GetEnv(), Dir: start.GetDir(), Terminal: start.GetTerminal(), Sizes: sizes,
	}, runtime.Streams{
		Stdin: stdin,
		Stdout: writerFunc(func(p []byte) error {
			return output.send(&claryv1.ExecOutput{Output: &claryv1.ExecOutput_Stdout{Stdout: p}})
		}),
		Stderr: writerFunc(func(p []byte) error {
			return output.send(&claryv1.ExecOutput{Output: &claryv1.ExecOutput_Stderr{Stderr: p}})
		}),
	})
	_ = stdin.Close()
	if err != nil {
		return err
	}
	return output.send(&claryv1.ExecOutput{Output: &claryv1.ExecOutput_ExitCode{ExitCode: int32(code)}})
}

func sizeOf(size *claryv1.TerminalSize) runtime.Size {
	return runtime.Size{Rows: uint16(min(size.GetRows(), 10_000)), Columns: uint16(min(size.GetColumns(), 10_000))}
}

// execOutput sends from both of a program's outputs.
type execOutput struct {
	mu     sync.Mutex
	stream grpc.BidiStreamingServer[claryv1.ExecInput, claryv1.ExecOutput]
}

func (o *execOutput) send(message *claryv1.ExecOutput) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stream.Send(message)
}

// writerFunc sends a copy of what is written.
type writerFunc func([]byte) error

func (w writerFunc) Write(p []byte) (int, error) {
	if err := w(append([]byte(nil), p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Forward is one connection to a port of a task.
func (s *taskHands) Forward(stream grpc.BidiStreamingServer[claryv1.ForwardInput, claryv1.ForwardOutput]) error {
	return wire.ToStatus(s.forward(stream))
}

func (s *taskHands) forward(stream grpc.BidiStreamingServer[claryv1.ForwardInput, claryv1.ForwardOutput]) error {
	leave, err := place(s.forwards, "connections")
	if err != nil {
		return err
	}
	defer leave()
	dialer, ok := s.agent.driver.(runtime.Dialer)
	if !ok {
		return fault.New(fault.Invalid, "this node reaches no ports of its tasks")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fault.New(fault.Invalid, "message: the first must be a start")
	}
	conn, err := dialer.Dial(stream.Context(), start.GetTask(), int(start.GetPort()))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // what was written was acknowledged or not
	stop := context.AfterFunc(stream.Context(), func() { _ = conn.Close() })
	defer stop()
	if err := stream.Send(&claryv1.ForwardOutput{Output: &claryv1.ForwardOutput_Started{Started: &claryv1.HandsStarted{Task: start.GetTask(), Node: s.agent.config.ID}}}); err != nil {
		return err
	}
	go func() { // ends with the stream
		for {
			input, err := stream.Recv()
			if err == nil && len(input.GetData()) > 0 {
				_, err = conn.Write(input.GetData())
			}
			if err != nil || input.GetEnd() {
				if half, ok := conn.(interface{ CloseWrite() error }); ok {
					_ = half.CloseWrite()
				}
				return
			}
		}
	}()
	buffer := make([]byte, forwardChunk)
	for {
		n, err := conn.Read(buffer)
		if n > 0 {
			if err := stream.Send(&claryv1.ForwardOutput{Output: &claryv1.ForwardOutput_Data{Data: append([]byte(nil), buffer[:n]...)}}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.New(fault.Conflict, "port %d of task %s: %w", start.GetPort(), cluster.Clip(start.GetTask()), err)
		}
	}
}
