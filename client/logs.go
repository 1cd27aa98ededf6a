package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"time"

	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/journal"
)

// LogRequest says which logs of a job to read.
type LogRequest struct {
	Job     string
	Task    string // "worker-1", a role, or a task's whole ID; all tasks if empty
	Attempt int32  // 0 is the newest
	Follow  bool   // go on until the job has ended
	Tail    int64  // the last lines of each task; 0 is all
	Stdout  bool   // neither Stdout nor Stderr is both
	Stderr  bool
	Since   time.Time // from then on; zero is from the beginning
	Until   time.Time // and before; zero is no bound
	Match   string    // lines in which this RE2 expression is found
}

// LogChunk is some of what one task wrote, in order of time, or a note about what cannot be told.
type LogChunk struct {
	Task    string
	Entries []journal.Entry // of the streams stdout and stderr
	Note    string
}

// Logs yields what the job's tasks wrote: merged by time, or with Follow as it comes. It goes on at
// another coordinator when one goes away, where it left off. An error is the last thing it yields.
func (c *Client) Logs(ctx context.Context, request LogRequest) iter.Seq2[LogChunk, error] {
	return func(yield func(LogChunk, error) bool) {
		reader := &logReader{request: request, after: map[string]int64{}, noted: map[string]bool{}, yield: yield}
		if err := c.stream(ctx, reader.once); err != nil {
			yield(LogChunk{}, err)
		}
	}
}

// logReader remembers how far each log was read, so that a second stream begins there.
type logReader struct {
	request LogRequest
	yield   func(LogChunk, error) bool
	after   map[string]int64 // time of the last entry that was passed on, by task
	noted   map[string]bool
}

// once passes one stream on.
func (r *logReader) once(ctx context.Context, p *peer) (done, heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := claryv1.NewJobsClient(p.conn).Logs(ctx, &claryv1.LogsRequest{
		Job: r.request.Job, Task: r.request.Task, Attempt: r.request.Attempt, Follow: r.request.Follow,
		Tail: r.request.Tail, Stdout: r.request.Stdout, Stderr: r.request.Stderr,
		Since: nanos(r.request.Since), Until: nanos(r.request.Until), Match: r.request.Match, After: maps.Clone(r.after),
	})
	if err != nil {
		return false, false, err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return true, heard, nil
		}
		if err != nil {
			return false, heard, err
		}
		for _, told := range response.GetChunks() {
			chunk := LogChunk{Task: told.GetTask(), Entries: wire.EntriesFromProto(told.GetEntries()), Note: told.GetNote()}
			if n := len(chunk.Entries); n > 0 {
				r.after[chunk.Task] = chunk.Entries[n-1].Time
			} else if chunk.Note == "" || r.noted[chunk.Note] {
				continue
			}
			heard, r.noted[chunk.Note] = true, true
			if !r.yield(chunk, nil) {
				return true, true, nil
			}
		}
	}
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
