package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"

	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// LogRequest says which logs of a job to read.
type LogRequest struct {
	Job     string
	Task    string // "worker-1", a role, or a task's whole ID; all tasks if empty
	Attempt int32  // 0 is the newest
	Follow  bool   // go on until the job has ended
	Tail    int64  // the last lines of each log; 0 is all
	Stdout  bool   // neither Stdout nor Stderr is both
	Stderr  bool
}

// LogChunk is a piece of one task's output, or a note about why there is none.
type LogChunk struct {
	Task   string
	Stream string // stdout or stderr
	Data   []byte
	Note   string
}

// Logs yields what the job's tasks wrote. Following goes on at another coordinator when
// one goes away, where it left off. An error is the last thing it yields.
func (c *Client) Logs(ctx context.Context, request LogRequest) iter.Seq2[LogChunk, error] {
	return func(yield func(LogChunk, error) bool) {
		reader := &logReader{request: request, read: map[string]int64{}, yield: yield}
		if err := c.stream(ctx, reader.once); err != nil {
			yield(LogChunk{}, err)
		}
	}
}

// logReader remembers how far each log was read, so that a second stream begins there.
type logReader struct {
	request LogRequest
	yield   func(LogChunk, error) bool
	read    map[string]int64 // bytes passed on, by task and stream
}

// once passes one stream on. A second stream's first bytes can be told from new ones
// unless only the last lines were asked for: those are others each time.
func (r *logReader) once(ctx context.Context, p *peer) (done, heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.request.Tail != 0 && len(r.read) != 0 {
		return false, false, fault.New(fault.Internal, "the coordinator went away while it showed the last lines: ask again")
	}
	stream, err := claryv1.NewJobsClient(p.conn).Logs(ctx, &claryv1.LogsRequest{
		Job: r.request.Job, Task: r.request.Task, Attempt: r.request.Attempt, Follow: r.request.Follow,
		Tail: r.request.Tail, Stdout: r.request.Stdout, Stderr: r.request.Stderr,
	})
	if err != nil {
		return false, false, err
	}
	for skip := maps.Clone(r.read); ; {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return true, heard, nil
		}
		if err != nil {
			return false, heard, err
		}
		chunk := LogChunk{Task: response.GetTask(), Stream: response.GetStream(), Data: response.GetData(), Note: response.GetNote()}
		log := chunk.Task + "\x00" + chunk.Stream
		known := min(skip[log], int64(len(chunk.Data)))
		skip[log] -= known
		chunk.Data = chunk.Data[known:]
		if len(chunk.Data) == 0 && chunk.Note == "" {
			continue
		}
		heard = true
		r.read[log] += int64(len(chunk.Data))
		if !r.yield(chunk, nil) {
			return true, true, nil
		}
	}
}
