package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

const chunkSize = 32 << 10 // bytes of one message

// ExecRequest says what to run beside a task.
type ExecRequest struct {
	Job      string
	Task     string // "worker-1", a role or a task's whole ID; the first that runs if empty
	Argv     []string
	Env      []string // beside the task's own
	Dir      string   // the task's own if empty
	Terminal bool
	Sizes    <-chan TerminalSize // of the terminal, the first one at once; nil for none
	Action   string              // for the record: exec or cp; exec if empty

	Stdin          io.Reader // nil is none; it may be read once more after Exec has returned
	Stdout, Stderr io.Writer // nil for none; a terminal's is all Stdout
}

// TerminalSize is in characters.
type TerminalSize struct{ Rows, Columns uint16 }

// Exec runs a program beside a task and returns its exit code when it has ended. The
// program ends with ctx. It is not tried again at another coordinator: it may have run.
func (c *Client) Exec(ctx context.Context, request ExecRequest) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := c.answering(ctx)
	if err != nil {
		return 0, err
	}
	stream, err := claryv1.NewHandsClient(conn).Exec(ctx)
	if err != nil {
		return 0, wire.FromStatus(err)
	}
	start := &claryv1.ExecStart{
		Job: request.Job, Task: request.Task, Argv: request.Argv, Env: request.Env, Dir: request.Dir, Terminal: request.Terminal, Action: request.Action,
	}
	select {
	case size := <-request.Sizes:
		start.Size = &claryv1.TerminalSize{Rows: uint32(size.Rows), Columns: uint32(size.Columns)}
	default:
	}
	input := &execInput{stream: stream}
	if err := input.send(&claryv1.ExecInput{Input: &claryv1.ExecInput_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return 0, wire.FromStatus(err)
	}
	go input.typing(request.Stdin)
	var resizing sync.WaitGroup
	defer resizing.Wait()
	defer cancel()
	resizing.Go(func() { input.resize(ctx, request.Sizes) })
	for {
		output, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, fault.New(fault.Unready, "the connection ended before the program did: nobody here knows how it ended")
		}
		if err != nil {
			return 0, wire.FromStatus(err)
		}
		switch o := output.GetOutput().(type) {
		case *claryv1.ExecOutput_Stdout:
			err = writeTo(request.Stdout, o.Stdout)
		case *claryv1.ExecOutput_Stderr:
			err = writeTo(request.Stderr, o.Stderr)
		case *claryv1.ExecOutput_ExitCode:
			return int(o.ExitCode), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func writeTo(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// execInput sends what is typed and how large the terminal is.
type execInput struct {
	mu     sync.Mutex
	stream grpc.BidiStreamingClient[claryv1.ExecInput, claryv1.ExecOutput]
}

func (i *execInput) send(message *claryv1.ExecInput) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stream.Send(message)
}

// typing sends what is read, and then that it has ended.
func (i *execInput) typing(from io.Reader) {
	buffer := make([]byte, chunkSize)
	for from != nil {
		n, err := from.Read(buffer)
		if n > 0 && i.send(&claryv1.ExecInput{Input: &claryv1.ExecInput_Stdin{Stdin: append([]byte(nil), buffer[:n]...)}}) != nil {
			return
		}
		if err != nil {
			break
		}
	}
	_ = i.send(&claryv1.ExecInput{Input: &claryv1.ExecInput_StdinEnd{StdinEnd: true}})
}

func (i *execInput) resize(ctx context.Context, sizes <-chan TerminalSize) {
	for {
		select {
		case size := <-sizes:
			_ = i.send(&claryv1.ExecInput{Input: &claryv1.ExecInput_Size{Size: &claryv1.TerminalSize{Rows: uint32(size.Rows), Columns: uint32(size.Columns)}}})
		case <-ctx.Done():
			return
		}
	}
}

// answering is a connection to a coordinator that has just answered.
func (c *Client) answering(ctx context.Context) (*grpc.ClientConn, error) {
	if _, err := c.WhoAmI(ctx); err != nil {
		return nil, err
	}
	return c.peers[int(c.next.Load())%len(c.peers)].conn, nil
}

// Forward connects to a port of a task, and passes bytes between it and local until one
// side ends. It closes local. connected, if it is not nil, is called once it stands.
func (c *Client) Forward(ctx context.Context, job, task string, port int, local io.ReadWriteCloser, connected func()) error {
	defer local.Close() //nolint:errcheck // nothing is written any more
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := c.answering(ctx)
	if err != nil {
		return err
	}
	stream, err := claryv1.NewHandsClient(conn).Forward(ctx)
	if err == nil {
		err = stream.Send(&claryv1.ForwardInput{Input: &claryv1.ForwardInput_Start{Start: &claryv1.ForwardStart{Job: job, Task: task, Port: int32(port)}}})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return wire.FromStatus(err)
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	defer local.Close() //nolint:errcheck // it ends the reading
	for {
		output, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wire.FromStatus(err)
		}
		if output.GetStarted() != nil {
			if connected != nil {
				connected()
			}
			sending.Go(func() { sendLocal(stream, local) })
		}
		if data := output.GetData(); len(data) > 0 {
			if _, err := local.Write(data); err != nil {
				return nil // whoever connected is gone
			}
		}
	}
}

func sendLocal(stream grpc.BidiStreamingClient[claryv1.ForwardInput, claryv1.ForwardOutput], local io.Reader) {
	buffer := make([]byte, chunkSize)
	for {
		n, err := local.Read(buffer)
		if n > 0 && stream.Send(&claryv1.ForwardInput{Input: &claryv1.ForwardInput_Data{Data: append([]byte(nil), buffer[:n]...)}}) != nil {
			return
		}
		if err != nil {
			_ = stream.Send(&claryv1.ForwardInput{Input: &claryv1.ForwardInput_End{End: true}})
			return
		}
	}
}

// AuditRequest says which deeds to list.
type AuditRequest struct {
	Since time.Time
	User  string
	Job   string
	What  string // an action, like nodes/drain, or its first word
	After string // the ID of the last deed that the caller has: the oldest after it come
	Limit int32  // the newest; 0 is all that one answer holds
}

// AuditAll is Audit, but a Limit of 0 is all that there are.
func (c *Client) AuditAll(ctx context.Context, request AuditRequest) ([]cluster.Deed, error) {
	if request.Limit != 0 {
		return c.Audit(ctx, request)
	}
	var all []cluster.Deed
	for request.After = cluster.NewDeedID(max(nanos(request.Since), 0), ""); ; {
		deeds, err := c.Audit(ctx, request)
		if err != nil || len(deeds) == 0 {
			return all, err
		}
		all = append(all, deeds...)
		request.After = deeds[len(deeds)-1].ID
	}
}

// Audit lists what was asked for and what people did in tasks, newest last.
func (c *Client) Audit(ctx context.Context, request AuditRequest) ([]cluster.Deed, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.AuditResponse, error) {
		return claryv1.NewHandsClient(conn).Audit(ctx, &claryv1.AuditRequest{Since: nanos(request.Since), User: request.User, Job: request.Job, Limit: request.Limit, What: request.What, After: request.After})
	})
	return each(response.GetDeeds(), wire.DeedFromProto), err
}
