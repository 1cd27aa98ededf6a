package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/journal"
	"github.com/clary-ml/clary/storage/journal/archive"
)

// The records of a task, as agents call them: also the folders in which they are below what
// its attempt keeps in the store.
const (
	logsFolder    = "logs"
	metricsFolder = "metrics"
)

const (
	askAgain      = time.Second      // while an agent cannot be asked for a log that is followed
	agentPatience = 30 * time.Second // after which what the store has must do
	// startSlack is by how much the times in a log may seem earlier than the task's start: some
	// container engines tell whole seconds.
	startSlack = time.Second
)

// attemptPrefix is where the tasks of an attempt keep their own.
func attemptPrefix(job string, attempt int32) string {
	return disposal.Folder(job) + "attempts/" + strconv.Itoa(int(attempt)) + "/"
}

// logReader reads one record of a task: from its agent while that has it, else from the store.
type logReader struct {
	jobs   *jobs
	task   cluster.Task
	record string        // logsFolder or metricsFolder
	query  journal.Query // whose cursor goes on with what is told
	to     func(context.Context, []*claryv1.LogEntry) error
	note   func(context.Context, string) error
}

// read tells the whole log, or until ctx ends. That a part of it cannot be had is told as a note:
// the rest, and the logs of other tasks, are still worth having.
func (r *logReader) read(ctx context.Context) error {
	for heard := time.Now(); ; {
		there, err := r.placed(ctx)
		if err != nil {
			return err
		}
		if !there {
			return r.fromStore(ctx, "its node is lost, and with it what was written last (at most a minute)")
		}
		before := r.query.After
		err = r.fromAgent(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case fault.Is(err, fault.NotFound):
			return r.fromStore(ctx, "what was written last is on its node no more, and did not get into the object store")
		}
		if r.query.After != before {
			heard = time.Now()
		}
		if !r.query.Follow || time.Since(heard) > agentPatience {
			return r.fromStore(ctx, fmt.Sprintf("node %s cannot be asked for what was written last: %v", r.task.Allocation.Node, err))
		}
		select { // an agent that is started again, or a node that is about to count as lost
		case <-time.After(askAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// placed reports whether the task is on a node that counts as there.
func (r *logReader) placed(ctx context.Context) (bool, error) {
	snapshot, err := r.jobs.replica.Read(ctx, true)
	if err != nil {
		return false, err
	}
	defer snapshot.Close()
	node, found := snapshot.Node(r.task.Allocation.Node)
	return found && node.State != cluster.NodeLost, nil
}

func (r *logReader) fromAgent(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := r.jobs.agents.Conn(r.task.Allocation.Node)
	if err != nil {
		return err
	}
	request := &claryv1.ReadLogsRequest{
		Task: r.task.ID, Streams: r.query.Streams, Follow: r.query.Follow, Tail: int64(r.query.Tail),
		Since: r.query.Since, Until: r.query.Until, After: r.query.After, Record: r.record,
	}
	if r.query.Match != nil {
		request.Match = r.query.Match.String()
	}
	source, err := claryv1.NewTaskLogsClient(conn).Read(ctx, request)
	for err == nil {
		var response *claryv1.ReadLogsResponse
		if response, err = source.Recv(); err == nil {
			err = r.tell(ctx, response.GetEntries())
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return wire.FromStatus(err)
}

func (r *logReader) tell(ctx context.Context, entries []*claryv1.LogEntry) error {
	if len(entries) == 0 {
		return nil
	}
	if err := r.to(ctx, entries); err != nil {
		return err
	}
	r.query.After, r.query.Tail = entries[len(entries)-1].GetTime(), 0
	return nil
}

// fromStore goes on with what the store has. lacking says what is missing if not all of it is there.
func (r *logReader) fromStore(ctx context.Context, lacking string) error {
	store, err := r.jobs.archives(attemptPrefix(r.task.Job, r.task.Attempt) + r.task.Role + "-" + strconv.Itoa(int(r.task.Index)) + "/" + r.record)
	whole := false
	if err == nil {
		query := r.query
		// A job of the same name may have been here before.
		query.Since = max(query.Since, r.task.Status.Started-int64(startSlack))
		whole, err = archive.Read(ctx, store, query, func(batch []journal.Entry) error {
			return r.tell(ctx, wire.EntriesToProto(batch))
		})
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		lacking = fmt.Sprintf("%s; and the object store: %v", lacking, err)
	case whole:
		return nil
	}
	return r.note(ctx, "of the "+r.record+" of "+r.task.ID+" a part is missing: "+lacking)
}
