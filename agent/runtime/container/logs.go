package container

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// Logs gives what the query wants of what the engine keeps. While the engine is away a log that is
// followed waits for it.
//
// An engine's own times may be equal, out of order (a long line has that of its beginning) or cut to
// seconds. An entry that would not be later than the one before is taken for a nanosecond later.
func (d *Driver) Logs(ctx context.Context, id string, query journal.Query, sink journal.Sink) error {
	h, err := d.find(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(d.ctx, func() { cancel(errClosed) })
	defer stop()
	for {
		// Ended first, then read: so nothing written before the end is missed.
		last := !query.Follow || h.ended() || query.Until != 0 && time.Now().UnixNano() >= query.Until
		part, err := query.Cut(nil, func(part journal.Query, sink journal.Sink) error {
			_, err := d.readLog(ctx, h, part, sink)
			return err
		})
		if err == nil {
			query.Tail, part.Follow = 0, !last
			query.After, err = d.readLog(ctx, h, part, sink)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case last && err == nil && query.Follow && h.ended():
			return h.err // if the driver was closed, the task runs on
		case last || err != nil && !fault.Is(err, fault.Unready):
			return err
		}
		wait := time.NewTimer(askAgain) // a stream that ends may mean that the engine does
		select {
		case <-h.done:
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
	}
}

// margin is how much earlier than a cursor an engine is asked from, since its times are not quite a
// cursor's: those of the entries after the first gap come out the same wherever reading begins.
const margin = time.Minute

// readLog reads once, and returns the time of the latest entry it saw, or the query's cursor. It fails
// with a sink's error, NotFound if there is no such container any more, and Unready if the engine
// cannot be asked.
func (d *Driver) readLog(ctx context.Context, h *handle, query journal.Query, sink journal.Sink) (int64, error) {
	options := moby.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: query.Follow}
	if after := max(query.After, query.Since); after > int64(margin) {
		options.Since = stamp(after - int64(margin))
	}
	if query.Until != 0 && !query.Follow {
		options.Until = stamp(query.Until + int64(time.Second))
	}
	answer, err := d.engine.ContainerLogs(ctx, h.name, options)
	if errdefs.IsNotFound(err) {
		return query.After, fault.New(fault.NotFound, "the log of task %s is gone with its container", h.id)
	}
	if err != nil {
		return query.After, fault.New(fault.Unready, "read the log of task %s: %w", h.id, err)
	}
	defer answer.Close() //nolint:errcheck // only read
	frames := &frames{from: bufio.NewReaderSize(answer, 64<<10), selection: query.Select(), sink: sink}
	err = frames.copy()
	seen := max(query.After, frames.selection.Last())
	switch {
	case ctx.Err() != nil:
		return seen, context.Cause(ctx)
	case frames.sunk != nil:
		return seen, frames.sunk
	case err != nil && !errors.Is(err, io.EOF):
		return seen, fault.New(fault.Unready, "read the log of task %s: %w", h.id, err)
	}
	return seen, nil
}

// stamp is how an engine takes an instant: in whole seconds, for those of its times that are.
func stamp(nanos int64) string { return fmt.Sprint(nanos / int64(time.Second)) }

// frames turns an engine's stream into entries. A frame is a byte for the stream, three of nothing,
// four for the length, and a time, a space and a line or a piece of one.
type frames struct {
	from      *bufio.Reader
	selection *journal.Selection
	sink      journal.Sink
	sunk      error // its error
	batch     []journal.Entry
	size      int   // of the batch's texts
	last      int64 // the latest entry's time
}

const (
	maxFrame = 1 << 20
	maxBatch = 256 << 10
)

var streams = map[byte]string{1: runtime.Stdout, 2: runtime.Stderr}

// copy goes on until the stream ends, with io.EOF if it ends well.
func (f *frames) copy() error {
	for !f.selection.Over() {
		header, err := f.read(8)
		if err != nil {
			return errors.Join(f.flush(), err)
		}
		length := binary.BigEndian.Uint32(header[4:])
		if length > maxFrame {
			return errors.Join(f.flush(), fmt.Errorf("the engine sends a piece of %d bytes", length))
		}
		frame, err := f.read(int(length))
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return errors.Join(f.flush(), err)
		}
		if stream, known := streams[header[0]]; known {
			f.take(stream, frame)
		}
		if f.size > maxBatch {
			if err := f.flush(); err != nil {
				return err
			}
		}
	}
	return f.flush()
}

// read reads a part of a frame. It shows what came before if it has to wait.
func (f *frames) read(length int) ([]byte, error) {
	if f.from.Buffered() < length {
		if err := f.flush(); err != nil {
			return nil, err
		}
	}
	part := make([]byte, length)
	_, err := io.ReadFull(f.from, part)
	return part, err
}

func (f *frames) take(stream string, frame []byte) {
	stamp, text, _ := bytes.Cut(frame, []byte(" "))
	at, err := journal.ParseTime(string(stamp))
	if err != nil {
		at = f.last
	}
	for len(text) > 0 {
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		text = rest
		f.last = max(f.last+1, at)
		if e, ok := f.selection.Pick(journal.Entry{Time: f.last, Stream: stream, Partial: !ended, Text: line}); ok {
			f.batch, f.size = append(f.batch, e), f.size+len(frame)
		}
	}
}

func (f *frames) flush() error {
	if len(f.batch) == 0 {
		return nil
	}
	f.sunk = f.sink(f.batch)
	f.batch, f.size = f.batch[:0], 0
	return f.sunk
}
