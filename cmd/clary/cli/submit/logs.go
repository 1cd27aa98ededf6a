package submit

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/storage/journal"
)

// Instant reads a moment: an instant, one of today or of this place's time, or how long ago.
func Instant(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := quantity.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago.Std()), nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if at, err := time.Parse(layout, text); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), at.Second(), at.Nanosecond(), time.Local), nil
		}
	}
	return time.Time{}, fault.New(fault.Invalid, "%s: %q is neither an instant like 2026-11-25T17:40:00Z nor how long ago it was, like 10m", flag, text)
}

// ShowLogs writes logs as they come. As soon as more than one task may write, each line says whose it
// is. What one task wrote is passed on byte for byte, unless its lines are to have their times.
func (a App) ShowLogs(ctx context.Context, c *client.Client, request client.LogRequest, stamped bool) error {
	if a.Format == "yaml" {
		return fault.New(fault.Invalid, "--output: logs are text or, with json, an object a line")
	}
	named := false
	if request.Task == "" {
		view, err := c.Job(ctx, request.Job)
		if err != nil {
			return err
		}
		size := 0
		for _, gang := range view.Gangs {
			size += gang.Size()
		}
		named = size > 1
	}
	out := a.logWriter(named, stamped)
	for chunk, err := range c.Logs(ctx, request) {
		if err == nil && chunk.Note != "" {
			a.Note("clary: %s", shell.OneLine(chunk.Note))
		}
		if err == nil {
			err = out.write(chunk)
		}
		if err != nil {
			_ = out.end()
			return err
		}
	}
	return out.end()
}

// logWriter writes chunks of logs; at the end, what it still holds.
type logWriter interface {
	write(client.LogChunk) error
	end() error
}

func (a App) logWriter(named, stamped bool) logWriter {
	if !a.ForPeople() {
		encoder := json.NewEncoder(a.Out)
		encoder.SetEscapeHTML(false)
		return &lineWriter{lines: map[string]*logLine{}, print: func(l *logLine, partial bool) error {
			return encoder.Encode(logJSON{Time: shell.Moment(l.time), Task: l.task, Stream: l.stream, Text: string(l.text), Partial: partial})
		}}
	}
	if !named && !stamped {
		return rawWriter{a.Out, a.Err}
	}
	return &lineWriter{lines: map[string]*logLine{}, print: func(l *logLine, _ bool) error {
		var line []byte
		if stamped {
			line = append(time.Unix(0, l.time).UTC().AppendFormat(line, stampLayout), ' ')
		}
		if named {
			line = append(append(line, shell.ShortTask(cluster.Task{ID: l.task})...), " | "...)
		}
		_, err := a.streamOf(l.stream).Write(append(append(line, l.text...), '\n'))
		return err
	}}
}

// stampLayout has what is left of a time in front of a line: milliseconds.
const stampLayout = "2006-01-02T15:04:05.000Z"

func (a App) streamOf(name string) io.Writer {
	if name == "stderr" {
		return a.Err
	}
	return a.Out
}

// logJSON is a line of a log for programs.
type logJSON struct {
	Time    string `json:"time"`
	Task    string `json:"task"`
	Stream  string `json:"stream"`
	Text    string `json:"text"`
	Partial bool   `json:"partial,omitempty"` // the line goes on
}

// rawWriter passes on the bytes that were written.
type rawWriter struct{ out, err io.Writer }

func (w rawWriter) write(chunk client.LogChunk) error {
	for first := 0; first < len(chunk.Entries); {
		next, text := first, []byte(nil)
		for next < len(chunk.Entries) && chunk.Entries[next].Stream == chunk.Entries[first].Stream {
			text = chunk.Entries[next].AppendRaw(text)
			next++
		}
		to := w.out
		if chunk.Entries[first].Stream == "stderr" {
			to = w.err
		}
		if _, err := to.Write(text); err != nil {
			return err
		}
		first = next
	}
	return nil
}

func (rawWriter) end() error { return nil }

// lineWriter writes whole lines, so that tasks do not break into one another's.
type lineWriter struct {
	lines map[string]*logLine // that have no end yet, by task and stream
	print func(line *logLine, partial bool) error
}

// logLine is a line, with the time of its beginning.
type logLine struct {
	task, stream string
	time         int64
	text         []byte
}

// longestLine is written in pieces: a task that never ends its line must not fill the
// memory.
const longestLine = 64 << 10

func (w *lineWriter) write(chunk client.LogChunk) error {
	for _, e := range chunk.Entries {
		if err := w.take(chunk.Task, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *lineWriter) take(task string, e journal.Entry) error {
	key := task + " " + e.Stream
	line := w.lines[key]
	if line == nil {
		line = &logLine{task: task, stream: e.Stream, time: e.Time}
	}
	line.text = append(line.text, e.Text...)
	if e.Partial && len(line.text) < longestLine {
		w.lines[key] = line
		return nil
	}
	delete(w.lines, key)
	return w.print(line, e.Partial)
}

func (w *lineWriter) end() error {
	for _, key := range shell.SortedKeys(w.lines) {
		if err := w.print(w.lines[key], true); err != nil {
			return err
		}
	}
	return nil
}
