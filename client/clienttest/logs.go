package clienttest

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/journal"
)

// logged is an entry of a task's log.
type logged struct {
	task string
	journal.Entry
}

// Log adds to what a job's task wrote.
func (c *Cluster) Log(job, task, stream, text string) { c.LogAt(time.Now(), job, task, stream, text) }

// LogAt adds to what a job's task wrote, at an instant that is not before the latest.
func (c *Cluster) LogAt(at time.Time, job, task, stream, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(text) {
		instant := at.UnixNano()
		if n := len(c.logs[job]); n > 0 {
			instant = max(instant, c.logs[job][n-1].Time+1)
		}
		text, ended := strings.CutSuffix(line, "\n")
		c.logs[job] = append(c.logs[job], logged{task, journal.Entry{Time: instant, Stream: stream, Partial: !ended, Text: []byte(text)}})
	}
	c.tell()
}

func (s *jobs) Logs(request *claryv1.LogsRequest, stream grpc.ServerStreamingServer[claryv1.LogsResponse]) error {
	query, err := wire.LogQuery(request)
	if err != nil {
		return err
	}
	if request.GetStdout() != request.GetStderr() {
		query.Streams = map[bool][]string{true: {"stdout"}, false: {"stderr"}}[request.GetStdout()]
	}
	after := maps.Clone(request.GetAfter())
	if after == nil {
		after = map[string]int64{}
	}
	for {
		view, found, changed := s.c.Job(request.GetJob())
		if !found {
			return noJob(request.GetJob())
		}
		chunks, err := s.wanted(request, query, after)
		if err != nil {
			return err
		}
		for _, chunk := range chunks {
			after[chunk.GetTask()] = chunk.GetEntries()[0].GetTime()
		}
		if len(chunks) > 0 {
			if err := stream.Send(&claryv1.LogsResponse{Chunks: chunks}); err != nil {
				return err
			}
		}
		if view.Job.State.Ended() || !request.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// wanted is what comes next of a job's log, in order of time.
func (s *jobs) wanted(request *claryv1.LogsRequest, query journal.Query, after map[string]int64) ([]*claryv1.LogChunk, error) {
	s.c.mu.Lock()
	all := slices.Clone(s.c.logs[request.GetJob()])
	s.c.mu.Unlock()
	tasks := map[string][]journal.Entry{}
	for _, l := range all {
		short := l.task[strings.LastIndexByte(l.task, '/')+1:]
		if name := request.GetTask(); name == "" || name == l.task || strings.HasPrefix(short, name+".") {
			tasks[l.task] = append(tasks[l.task], l.Entry)
		}
	}
	var chunks []*claryv1.LogChunk
	for task, entries := range tasks {
		scan := func(part journal.Query, sink journal.Sink) error {
			selection := part.Select()
			for _, e := range entries {
				if e, ok := selection.Pick(e); ok {
					if err := sink([]journal.Entry{e}); err != nil {
						return err
					}
				}
			}
			return nil
		}
		part := query
		if part.After = after[task]; part.After != 0 {
			part.Tail = 0
		}
		part, err := part.Cut(nil, scan)
		if err != nil {
			return nil, err
		}
		_ = scan(part, func(batch []journal.Entry) error {
			chunks = append(chunks, &claryv1.LogChunk{Task: task, Entries: wire.EntriesToProto(batch)})
			return nil
		})
	}
	slices.SortFunc(chunks, func(a, b *claryv1.LogChunk) int {
		return cmp.Compare(a.GetEntries()[0].GetTime(), b.GetEntries()[0].GetTime())
	})
	return chunks, nil
}
