package journal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"
)

const (
	readBlock   = 64 << 10               // bytes of a file that are looked at together
	followEvery = 100 * time.Millisecond // how often a followed journal is looked at
	lookBack    = 4 * maxLine            // before a cursor, for the beginning of lines that come in pieces
)

// Read gives sink what the query wants of the journal at path. With Follow it goes on until done is
// closed and all that was written before is read, or the query's last instant has passed. An error of
// os.ErrNotExist says that there is no journal.
func Read(ctx context.Context, path string, query Query, done <-chan struct{}, sink Sink) error {
	c, err := openChain(path)
	for errors.Is(err, os.ErrNotExist) && query.Follow && pause(ctx, done) {
		c, err = openChain(path)
	}
	if err != nil {
		return err
	}
	defer c.close()
	if query, err = query.Cut(c.starts(), func(part Query, sink Sink) error { return c.scan(ctx, part, sink) }); err != nil {
		return err
	}
	from, err := c.find(query)
	if err != nil {
		return err
	}
	c.skip(from)
	picker := newPicker(query, sink)
	for {
		// Ended first, then read: so nothing written before the end is missed.
		last := !query.Follow || isClosed(done) || query.Until != 0 && time.Now().UnixNano() >= query.Until
		if err := c.drain(ctx, picker); err != nil {
			return err
		}
		if last || picker.Over() {
			return nil
		}
		pause(ctx, done)
	}
}

// pause waits a moment, or until there is something to do; false says that there is not.
func pause(ctx context.Context, done <-chan struct{}) bool {
	if isClosed(done) {
		return false
	}
	timer := time.NewTimer(followEvery)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-done:
	case <-timer.C:
	}
	return true
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// picker gives a sink what is wanted of the lines of a file.
type picker struct {
	*Selection
	sink   Sink
	parser parser
	batch  []Entry
}

func newPicker(query Query, sink Sink) *picker { return &picker{Selection: query.Select(), sink: sink} }

// Scan shows the selection all lines that come from a reader, and sink what it wants of them. What
// comes after the last newline is no line.
func (s *Selection) Scan(ctx context.Context, from io.Reader, sink Sink) error {
	to := &picker{Selection: s, sink: sink}
	block, held := make([]byte, readBlock), 0
	for !s.Over() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var err error
		for n := 0; held < len(block) && err == nil; held += n {
			n, err = from.Read(block[held:])
		}
		whole := bytes.LastIndexByte(block[:held], '\n') + 1
		if sunk := to.take(block[:whole]); sunk != nil {
			return sunk
		}
		if whole == 0 {
			whole = held // no line of a journal is so long
		}
		held = copy(block, block[whole:held])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take looks at whole lines, which stay as they are until it returns.
func (p *picker) take(lines []byte) error {
	p.batch = p.batch[:0]
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n')
		if e, ok := p.parser.parse(lines[:end]); ok {
			if e, ok = p.Pick(e); ok {
				p.batch = append(p.batch, e)
			}
		}
		lines = lines[end+1:]
	}
	if len(p.batch) == 0 {
		return nil
	}
	return p.sink(p.batch)
}

// chain is a journal's files while they are read.
type chain struct {
	path   string
	files  []*os.File // oldest first; the last may grow, and is read on after it was renamed
	sizes  []int64    // when they were opened
	offset int64      // where in the first of them reading goes on
	block  []byte
}

func openChain(path string) (*chain, error) {
	c := &chain{path: path, block: make([]byte, readBlock)}
	return c, c.open(nil)
}

// open adds the files that came after the one given. That the newest is not there is no error while
// the one before is: it is about to be made.
func (c *chain) open(after *os.File) error {
	current, err := os.Open(c.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	before, errBefore := os.Open(c.path + older)
	for _, file := range []*os.File{before, current} {
		if file == nil {
			continue
		}
		if after != nil && sameFile(file, after) {
			_ = file.Close()
			continue
		}
		info, err := file.Stat()
		if err != nil {
			_ = file.Close()
			return err
		}
		c.files, c.sizes, after = append(c.files, file), append(c.sizes, info.Size()), file
	}
	if len(c.files) == 0 {
		return errBefore
	}
	return nil
}

func sameFile(a, b *os.File) bool {
	left, errLeft := a.Stat()
	right, errRight := b.Stat()
	return errLeft == nil && errRight == nil && os.SameFile(left, right)
}

func (c *chain) close() {
	for _, file := range c.files {
		_ = file.Close()
	}
}

// skip goes on at a place among the files as they were opened.
func (c *chain) skip(from int64) {
	for len(c.files) > 1 && from >= c.sizes[0] {
		from -= c.sizes[0]
		c.drop()
	}
	c.offset = min(from, c.sizes[0])
}

func (c *chain) drop() {
	_ = c.files[0].Close()
	c.files, c.sizes, c.offset = c.files[1:], c.sizes[1:], 0
}

// drain shows all lines that there are now.
func (c *chain) drain(ctx context.Context, to *picker) error {
	for {
		file := c.files[0]
		rotated := len(c.files) > 1 || c.rotated(file)
		var err error
		if c.offset, err = c.copy(ctx, file, c.offset, -1, to); err != nil || !rotated || to.Over() {
			return err
		}
		if len(c.files) == 1 {
			if err := c.open(file); err != nil && !errors.Is(err, os.ErrNotExist) || len(c.files) == 1 {
				return err
			}
		}
		c.drop()
	}
}

// copy shows the whole lines of a file from an offset up to another, or its end, and returns
// where it stopped.
func (c *chain) copy(ctx context.Context, file *os.File, offset, until int64, to *picker) (int64, error) {
	for !to.Over() {
		if ctx.Err() != nil {
			return offset, context.Cause(ctx)
		}
		block := c.block
		if until >= 0 {
			block = block[:min(int64(len(block)), max(until-offset, 0))]
		}
		n, err := file.ReadAt(block, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return offset, err
		}
		whole := bytes.LastIndexByte(block[:n], '\n') + 1
		if whole == 0 && n < len(c.block) {
			return offset, nil // a line that is still being written
		}
		if err := to.take(block[:whole]); err != nil {
			return offset, err
		}
		if offset += int64(whole); whole == 0 {
			offset += int64(n) // no line of a journal is so long
		}
	}
	return offset, nil
}

// rotated reports whether the file is no longer the one at the path, after which it does not
// grow any more.
func (c *chain) rotated(file *os.File) bool {
	now, err := os.Stat(c.path)
	if err != nil {
		return false
	}
	then, err := file.Stat()
	return err == nil && !os.SameFile(now, then)
}
