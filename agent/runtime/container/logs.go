package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
)

// Logs writes one stream of a task, oldest kept byte first. It reads what the engine keeps;
// while the engine is away it fails.
func (d *Driver) Logs(ctx context.Context, id string, query runtime.LogQuery, to io.Writer) error {
	h, err := d.find(id)
	if err != nil {
		return err
	}
	if query.Stream != runtime.Stdout && query.Stream != runtime.Stderr {
		return fault.New(fault.Invalid, "stream %q: it is stdout or stderr", query.Stream)
	}
	options := moby.ContainerLogsOptions{
		ShowStdout: query.Stream == runtime.Stdout, ShowStderr: query.Stream == runtime.Stderr, Follow: query.Follow && !h.ended(),
	}
	if query.Tail <= 0 {
		return d.copyLogs(ctx, h, options, to)
	}
	// An engine counts the last lines of both streams together: they are counted here. What
	// came before an instant is cut to the last lines, and what comes after follows.
	instant := time.Now()
	before, last := options, &lastLines{most: query.Tail}
	before.Follow, before.Until = false, stamp(instant)
	if !options.Follow {
		before.Until = ""
	}
	if err := d.copyLogs(ctx, h, before, last); err != nil {
		return err
	}
	if _, err := to.Write(last.text()); err != nil || !options.Follow {
		return err
	}
	options.Since = stamp(instant)
	return d.copyLogs(ctx, h, options, to)
}

// stamp is how an engine takes an instant.
func stamp(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

func (d *Driver) copyLogs(ctx context.Context, h *handle, options moby.ContainerLogsOptions, to io.Writer) error {
	answer, err := d.engine.ContainerLogs(ctx, h.name, options)
	if err != nil {
		return fault.New(fault.Unready, "read the log of task %s: %w", h.id, err)
	}
	defer answer.Close() //nolint:errcheck // only read
	_, err = stdcopy.StdCopy(to, to, answer)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Unready, "read the log of task %s: %w", h.id, err)
	}
	return nil
}

// lastLines keeps the last lines of what is written to it.
type lastLines struct {
	most  int
	lines [][]byte // the last may have no end yet
}

func (l *lastLines) Write(p []byte) (int, error) {
	for part := range bytes.SplitAfterSeq(p, []byte("\n")) {
		if len(part) == 0 {
			continue
		}
		if n := len(l.lines); n > 0 && !bytes.HasSuffix(l.lines[n-1], []byte("\n")) {
			l.lines[n-1] = append(l.lines[n-1], part...)
			continue
		}
		if len(l.lines) == l.most {
			l.lines = append(l.lines[:0], l.lines[1:]...)
		}
		l.lines = append(l.lines, bytes.Clone(part))
	}
	return len(p), nil
}

func (l *lastLines) text() []byte { return bytes.Join(l.lines, nil) }
