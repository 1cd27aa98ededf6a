package rpc

import (
	"context"
	"errors"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// maxLogReaders is how many tasks' logs one request reads at once.
const maxLogReaders = 256

// Logs gathers the logs of a job's tasks from their agents. With follow it goes on
// through new attempts until the job has ended.
func (s *jobs) Logs(request *claryv1.LogsRequest, stream grpc.ServerStreamingServer[claryv1.LogChunk]) error {
	if request.GetTail() < 0 {
		return fault.New(fault.Invalid, "tail: %d is negative: say how many last lines to show, 0 for all", request.GetTail())
	}
	group, ctx := errgroup.WithContext(stream.Context())
	chunks := make(chan *claryv1.LogChunk, 16)
	gathering := &logGathering{jobs: s, request: request, chunks: chunks, started: map[string]bool{}}
	group.Go(func() error {
		defer close(chunks)
		return gathering.run(ctx)
	})
	group.Go(func() error {
		for chunk := range chunks {
			if err := stream.Send(chunk); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// logGathering is one Logs request at work.
type logGathering struct {
	jobs    *jobs
	request *claryv1.LogsRequest
	chunks  chan<- *claryv1.LogChunk
	started map[string]bool // by task id
}

// run starts a reader for each task as it appears, and waits for all of them.
func (g *logGathering) run(ctx context.Context) error {
	events := g.jobs.replica.Events().Subscribe(ofJob(g.request.GetJob()))
	defer events.Close()
	readers, ctx := errgroup.WithContext(ctx)
	stale := false
	for {
		tasks, ended, err := g.tasks(ctx, stale)
		if err != nil {
			return errors.Join(err, readers.Wait())
		}
		stale = true // the first look was linearizable, what follows is told by events
		if len(tasks) > maxLogReaders {
			return fault.New(fault.Invalid, "task: the job has %d tasks, at most %d can be read at once: name one", len(tasks), maxLogReaders)
		}
		for _, task := range tasks {
			if !g.started[task.ID] {
				g.started[task.ID] = true
				readers.Go(func() error { return g.read(ctx, task) })
			}
		}
		if ended || !g.request.GetFollow() {
			return readers.Wait()
		}
		select {
		case <-ctx.Done():
			_ = readers.Wait()
			return ctx.Err()
		case _, open := <-events.C:
			if !open {
				_ = readers.Wait()
				return fault.New(fault.Unready, "this coordinator is stopping: ask another")
			}
		}
	}
}

// tasks returns the tasks to read that have started, and whether the job has ended.
func (g *logGathering) tasks(ctx context.Context, stale bool) ([]cluster.Task, bool, error) {
	snapshot, err := g.jobs.replica.Read(ctx, stale)
	if err != nil {
		return nil, false, err
	}
	defer snapshot.Close()
	job, ok := snapshot.Job(g.request.GetJob())
	if !ok {
		return nil, false, noJob(g.request.GetJob())
	}
	attempt := job.Attempt
	if g.request.GetAttempt() != 0 {
		attempt = g.request.GetAttempt()
	}
	var chosen []cluster.Task
	for task := range snapshot.TasksOf(job.Name) {
		started := task.Status.Started != 0
		if started && task.Attempt == attempt && named(task, g.request.GetTask()) {
			chosen = append(chosen, task)
		}
	}
	return chosen, job.State.Ended(), nil
}

// named reports whether the task is the one a user means by "worker-1", by a role's
// name alone, or by the whole id.
func named(task cluster.Task, name string) bool {
	if name == "" || name == task.ID || name == task.Role {
		return true
	}
	short := task.ID[strings.LastIndexByte(task.ID, '/')+1:]
	short, _, _ = strings.Cut(short, ".")
	return name == short
}

func (g *logGathering) read(ctx context.Context, task cluster.Task) error {
	both := !g.request.GetStdout() && !g.request.GetStderr()
	readers, ctx := errgroup.WithContext(ctx)
	for name, wanted := range map[string]bool{"stdout": g.request.GetStdout(), "stderr": g.request.GetStderr()} {
		if wanted || both {
			readers.Go(func() error { return g.readStream(ctx, task, name) })
		}
	}
	return readers.Wait()
}

// readStream passes one log on. That a node cannot be asked is told as a note: the logs
// of the other tasks are still worth having.
func (g *logGathering) readStream(ctx context.Context, task cluster.Task, name string) error {
	send := func(chunk *claryv1.LogChunk) error {
		chunk.Task, chunk.Stream = task.ID, name
		select {
		case g.chunks <- chunk:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := g.copyStream(ctx, task, name, send)
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return ctx.Err()
	}
	return send(&claryv1.LogChunk{Note: "logs of " + task.ID + " on node " + task.Allocation.Node + " cannot be read now: " + err.Error()})
}

// copyStream sends on what the task's agent sends; at the log's end it returns io.EOF.
func (g *logGathering) copyStream(ctx context.Context, task cluster.Task, name string, send func(*claryv1.LogChunk) error) error {
	conn, err := g.jobs.agents.Conn(task.Allocation.Node)
	if err != nil {
		return err
	}
	source, err := claryv1.NewTaskLogsClient(conn).Read(ctx, &claryv1.ReadLogsRequest{
		Task: task.ID, Stream: name, Follow: g.request.GetFollow(), Tail: g.request.GetTail(),
	})
	if err != nil {
		return err
	}
	for {
		data, err := source.Recv()
		if err != nil {
			return err
		}
		if err := send(&claryv1.LogChunk{Data: data.GetData(), Note: data.GetNote()}); err != nil {
			return err
		}
	}
}
