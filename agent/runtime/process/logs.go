package process

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
)

// followEvery is how often a followed log is looked at.
const followEvery = 100 * time.Millisecond

// Logs writes one stream of a task, oldest kept byte first.
func (d *Driver) Logs(ctx context.Context, id string, query runtime.LogQuery, to io.Writer) error {
	h, err := d.find(id)
	if err != nil {
		return err
	}
	name := map[runtime.Stream]string{runtime.Stdout: shim.Stdout, runtime.Stderr: shim.Stderr}[query.Stream]
	if name == "" {
		return fault.New(fault.Invalid, "stream %q: it is stdout or stderr", query.Stream)
	}
	reader := &logReader{path: filepath.Join(h.dir, name)}
	defer reader.close()
	if err := reader.begin(query.Tail); err != nil {
		return fault.New(fault.Internal, "read log of task %s: %w", id, err)
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		// Ended first, then read: so nothing written before the end is missed.
		last := h.ended() || !query.Follow
		if err := reader.copy(to); err != nil {
			return err
		}
		if last {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.done:
		case <-tick.C:
		}
	}
}

// logReader reads a rotated pair of files as one stream.
type logReader struct {
	path string
	// queue are the files yet to be read, oldest first. The last is the current one,
	// which may grow, and which keeps being read after it was renamed.
	queue []*os.File
}

// begin opens what is kept and skips to the last n lines; n of 0 skips nothing.
func (r *logReader) begin(n int) error {
	if err := r.open(nil); err != nil || n <= 0 {
		return err
	}
	for i := len(r.queue) - 1; i >= 0; i-- {
		found, err := seekLines(r.queue[i], n)
		if err != nil {
			return err
		}
		if n -= found; n <= 0 {
			for _, f := range r.queue[:i] {
				_ = f.Close()
			}
			r.queue = r.queue[i:]
			return nil
		}
	}
	return nil
}

// open queues the files that came after the one given.
func (r *logReader) open(after *os.File) error {
	current, err := os.Open(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // between the two renames of a rotation, or not begun yet
	}
	if err != nil {
		return err
	}
	older, err := os.Open(r.path + ".1")
	if err == nil && (sameFile(older, current) || (after != nil && sameFile(older, after))) {
		_ = older.Close()
	} else if err == nil {
		r.queue = append(r.queue, older)
	}
	r.queue = append(r.queue, current)
	return nil
}

// copy writes everything there is now.
func (r *logReader) copy(to io.Writer) error {
	for {
		if len(r.queue) == 0 {
			if err := r.open(nil); err != nil || len(r.queue) == 0 {
				return err
			}
		}
		file := r.queue[0]
		rotated := len(r.queue) > 1 || r.rotated(file)
		if _, err := io.Copy(struct{ io.Writer }{to}, file); err != nil {
			return err
		}
		if !rotated {
			return nil
		}
		if len(r.queue) == 1 {
			if err := r.open(file); err != nil || len(r.queue) == 1 {
				return err
			}
		}
		_ = file.Close()
		r.queue = r.queue[1:]
	}
}

// rotated reports whether the file is no longer the one at the path, after which it
// does not grow any more.
func (r *logReader) rotated(file *os.File) bool {
	now, err := os.Stat(r.path)
	if err != nil {
		return false
	}
	then, err := file.Stat()
	return err == nil && !os.SameFile(now, then)
}

func (r *logReader) close() {
	for _, file := range r.queue {
		_ = file.Close()
	}
}

func sameFile(a, b *os.File) bool {
	left, errLeft := a.Stat()
	right, errRight := b.Stat()
	return errLeft == nil && errRight == nil && os.SameFile(left, right)
}

// seekLines places the file before its last n lines and returns how many lines that
// is. A last line without an end counts.
func seekLines(file *os.File, n int) (int, error) {
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	found := 0
	block := make([]byte, 64<<10)
	for at := end; at > 0; {
		size := min(at, int64(len(block)))
		at -= size
		if _, err := file.ReadAt(block[:size], at); err != nil {
			return 0, err
		}
		rest := block[:size]
		if at+size == end {
			rest = bytes.TrimSuffix(rest, []byte("\n"))
		}
		for {
			i := bytes.LastIndexByte(rest, '\n')
			if i < 0 {
				break
			}
			if found++; found == n {
				_, err := file.Seek(at+int64(i)+1, io.SeekStart)
				return n, err
			}
			rest = rest[:i]
		}
	}
	if end > 0 {
		found++
	}
	_, err = file.Seek(0, io.SeekStart)
	return found, err
}
