package rpc

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/journal"
)

// maxLogReaders is how many tasks' logs one request reads at once.
const maxLogReaders = 256

// maxLogRequests is how many Logs requests a coordinator answers at once, and maxLogsRead how many tasks' logs all of them read: while
// nobody reads what is told, each of those holds what its agent sent ahead (member.Window) and a batch.
const maxLogRequests, maxLogsRead = 256, 1024

// fullResponse is how many bytes a response has at least if more is at hand.
const fullResponse = 64 << 10

// Logs shows what a job's tasks wrote: from their agents while they have it, else from the object
// store. Without follow the tasks' logs are merged by time; with it they come as they come, through
// new attempts until the job has ended.
func (s *jobs) Logs(request *claryv1.LogsRequest, stream grpc.ServerStreamingServer[claryv1.LogsResponse]) error {
	if s.showing.Add(1) > maxLogRequests {
		s.showing.Add(-1)
		return fault.New(fault.Exhausted, "this coordinator shows %d logs at once, and no more: end some, or ask another coordinator", maxLogRequests)
	}
	defer s.showing.Add(-1)
	query, err := wire.LogQuery(request)
	if err != nil {
		return err
	}
	if request.GetStdout() != request.GetStderr() {
		query.Streams = []string{"stdout"}
		if request.GetStderr() {
			query.Streams = []string{"stderr"}
		}
	}
	group, ctx := errgroup.WithContext(stream.Context())
	g := &logGathering{jobs: s, request: request, query: query, out: make(chan []*claryv1.LogChunk, 2), started: map[string]bool{}}
	group.Go(func() error {
		defer close(g.out)
		if query.Follow {
			return g.follow(ctx)
		}
		return g.merge(ctx)
	})
	group.Go(func() error { return sendChunks(g.out, stream) })
	return group.Wait()
}

// seat takes note of so many more tasks' logs that are read, or refuses them. What it returns is to be called once they are not any more.
func (s *jobs) seat(logs int) (rise func(), err error) {
	if s.reading.Add(int64(logs)) > maxLogsRead {
		s.reading.Add(-int64(logs))
		return nil, fault.New(fault.Exhausted, "this coordinator reads the logs of %d tasks at once, and no more: name a task, end some, or ask another coordinator", maxLogsRead)
	}
	return func() { s.reading.Add(-int64(logs)) }, nil
}

// sendChunks sends chunks, as many in a response as are at hand.
func sendChunks(from <-chan []*claryv1.LogChunk, stream grpc.ServerStreamingServer[claryv1.LogsResponse]) error {
	for chunks := range from {
		size := sizeOf(chunks)
		for more := true; more && size < fullResponse; {
			select {
			case next := <-from: // nothing, once it is closed
				chunks, size, more = append(chunks, next...), size+sizeOf(next), len(next) > 0
			default:
				more = false
			}
		}
		if err := stream.Send(&claryv1.LogsResponse{Chunks: chunks}); err != nil {
			return err
		}
	}
	return nil
}

// sizeOf is about how many bytes chunks take.
func sizeOf(chunks []*claryv1.LogChunk) int {
	size := 0
	for _, chunk := range chunks {
		size += len(chunk.GetTask())
		for _, e := range chunk.GetEntries() {
			size += len(e.GetText()) + 32
		}
	}
	return size
}

// logGathering is one Logs request at work.
type logGathering struct {
	jobs    *jobs
	request *claryv1.LogsRequest
	query   journal.Query
	out     chan []*claryv1.LogChunk
	base    int32           // the attempt that is shown, and with follow all after it
	started map[string]bool // by task id
}

// reader reads one task's log, telling entries to one and notes to all.
func (g *logGathering) reader(task cluster.Task, to func(context.Context, []*claryv1.LogEntry) error) *logReader {
	query := g.query
	if query.After = g.request.GetAfter()[task.ID]; query.After != 0 {
		query.Tail = 0 // it was cut to its last lines before
	}
	return &logReader{jobs: g.jobs, task: task, record: logsFolder, query: query, to: to, note: func(ctx context.Context, text string) error {
		return g.tell(ctx, &claryv1.LogChunk{Task: task.ID, Note: text})
	}}
}

func (g *logGathering) tell(ctx context.Context, chunks ...*claryv1.LogChunk) error {
	select {
	case g.out <- chunks:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow starts a reader for each task as it appears, and waits for all of them.
func (g *logGathering) follow(ctx context.Context) error {
	events := g.jobs.replica.Events().Subscribe(ofJob(g.request.GetJob()))
	defer events.Close()
	readers, ctx := errgroup.WithContext(ctx)
	var over <-chan time.Time
	if g.query.Until != 0 {
		timer := time.NewTimer(time.Until(time.Unix(0, g.query.Until)))
		defer timer.Stop()
		over = timer.C
	}
	stale := false
	for {
		tasks, ended, err := g.tasks(ctx, stale)
		if err != nil {
			return errors.Join(err, readers.Wait())
		}
		stale = true // the first look was linearizable, what follows is told by events
		for _, task := range tasks {
			if !g.started[task.ID] {
				g.started[task.ID] = true
				readers.Go(func() error {
					rise, err := g.jobs.seat(1)
					if err != nil {
						return err
					}
					defer rise()
					return g.reader(task, func(ctx context.Context, entries []*claryv1.LogEntry) error {
						return g.tell(ctx, &claryv1.LogChunk{Task: task.ID, Entries: entries})
					}).read(ctx)
				})
			}
		}
		if ended {
			return readers.Wait()
		}
		select {
		case <-ctx.Done():
			return errors.Join(readers.Wait(), ctx.Err())
		case <-over:
			return readers.Wait()
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
	job, gangs, all, err := g.jobs.tasksOf(ctx, snapshot, g.request.GetJob())
	snapshot.Close()
	if err != nil {
		return nil, false, err
	}
	if err := g.misnamed(gangs, all); err != nil {
		return nil, false, err
	}
	if g.base == 0 {
		g.base = cmp.Or(g.request.GetAttempt(), newest(all), job.Attempt)
	}
	onRecord := slices.ContainsFunc(all, func(task cluster.Task) bool { return task.Attempt == g.base })
	if !onRecord && g.base < job.Attempt {
		if all, err = g.forgotten(ctx, gangs); err != nil {
			return nil, false, err
		}
	}
	chosen := slices.DeleteFunc(all, func(task cluster.Task) bool {
		return task.Status.Started == 0 || !g.shows(task) || !named(task, g.request.GetTask())
	})
	if len(chosen) > maxLogReaders {
		return nil, false, fault.New(fault.Invalid, "task: the job has %d tasks, at most %d can be read at once: name one", len(chosen), maxLogReaders)
	}
	return chosen, job.State.Ended(), nil
}

// misnamed refuses a task that this job never has, for which nothing would be shown, or waited in vain. One of a role that
// it has may come with a later attempt, or have been in an earlier one.
func (g *logGathering) misnamed(gangs []cluster.Gang, all []cluster.Task) error {
	name := g.request.GetTask()
	if len(gangs) == 0 || slices.ContainsFunc(all, func(task cluster.Task) bool { return named(task, name) }) {
		return nil
	}
	short := name[strings.LastIndexByte(name, '/')+1:]
	var roles []string
	for _, gang := range gangs {
		for _, role := range gang.Roles {
			if name == "" || short == role.Name || strings.HasPrefix(short, role.Name+"-") {
				return nil
			}
			roles = append(roles, role.Name)
		}
	}
	slices.Sort(roles)
	return fault.New(fault.Invalid, "task: %q is no task of job %s: name a role of it (%s) or a task of one, like %s-0",
		cluster.Clip(name), g.request.GetJob(), strings.Join(slices.Compact(roles), ", "), roles[0])
}

// newest is the last attempt that has begun: one that waits for its place has nothing to show yet.
func newest(tasks []cluster.Task) int32 {
	last := int32(0)
	for _, task := range tasks {
		if task.Status.Started != 0 {
			last = max(last, task.Attempt)
		}
	}
	return last
}

// shows reports whether a task's attempt is wanted, or was when the caller was first answered.
func (g *logGathering) shows(task cluster.Task) bool {
	if _, begun := g.request.GetAfter()[task.ID]; begun || task.Attempt == g.base {
		return true
	}
	return g.request.GetFollow() && g.request.GetAttempt() == 0 && task.Attempt > g.base
}

// forgotten are the tasks of an attempt that is no longer on record, as far as the store has their logs.
func (g *logGathering) forgotten(ctx context.Context, gangs []cluster.Gang) ([]cluster.Task, error) {
	store, err := g.jobs.archives(attemptPrefix(g.request.GetJob(), g.base))
	if err != nil {
		return nil, err
	}
	names, err := store.List(ctx)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	logs := map[string]bool{}
	for _, name := range names {
		if folder, _, has := strings.Cut(name, "/"+logsFolder+"/"); has {
			logs[folder] = true
		}
	}
	var tasks []cluster.Task
	for _, gang := range gangs {
		gang.Attempt = g.base
		for _, role := range gang.Roles {
			for index := range role.Count {
				if logs[role.Name+"-"+strconv.Itoa(int(index))] {
					tasks = append(tasks, cluster.Task{
						ID: gang.TaskID(role.Name, index), Job: gang.Job, Gang: gang.ID(), Role: role.Name, Index: index, Attempt: g.base,
						Status: cluster.TaskStatus{State: cluster.TaskLost, Started: 1},
					})
				}
			}
		}
	}
	return tasks, nil
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
