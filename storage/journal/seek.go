package journal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
)

// tailStep is how far from the end the search for the last lines begins.
const tailStep = 256 << 10

// searchStep is how near the search for an instant comes: the rest is read.
const searchStep = 32 << 10

// total is the length of all files as they were opened.
func (c *chain) total() int64 {
	var total int64
	for _, size := range c.sizes {
		total += size
	}
	return total
}

// starts are instants for Query.Cut to look from: those of entries ever further from the end.
func (c *chain) starts() []int64 {
	var starts []int64
	total := c.total()
	for back := int64(tailStep); back < total; back *= 8 {
		at, i := total-back, 0
		for ; at >= c.sizes[i]; i++ {
			at -= c.sizes[i]
		}
		if _, time, ok := entryAt(c.files[i], at, c.sizes[i]); ok {
			starts = append(starts, time-1)
		}
	}
	return starts
}

// scan shows a query's part of the files as they were opened.
func (c *chain) scan(ctx context.Context, query Query, sink Sink) error {
	from, err := c.find(query)
	if err != nil {
		return err
	}
	to := newPicker(query, sink)
	for i, file := range c.files {
		if from < c.sizes[i] {
			if _, err := c.copy(ctx, file, from, c.sizes[i], to); err != nil {
				return err
			}
		}
		from = max(from-c.sizes[i], 0)
	}
	return nil
}

// find returns a place among the files, the beginning of a line, before which the query wants
// nothing.
func (c *chain) find(query Query) (int64, error) {
	after, passed := max(query.After, query.Since-1), int64(0)
	if after <= 0 {
		return 0, nil
	}
	for i, file := range c.files {
		size := c.sizes[i]
		if _, first, ok := entryAt(file, 0, size); i > 0 && (!ok || first > after) {
			break
		}
		at, err := search(file, size, after)
		if err != nil {
			return 0, err
		}
		passed = at
		for _, before := range c.sizes[:i] {
			passed += before
		}
	}
	if query.Match == nil {
		return passed, nil
	}
	return c.lineBefore(max(passed-lookBack, 0))
}

// lineBefore returns the beginning of a line near a place.
func (c *chain) lineBefore(at int64) (int64, error) {
	passed := int64(0)
	for i, file := range c.files {
		if at < passed+c.sizes[i] {
			start, err := lineStart(file, at-passed, c.sizes[i])
			return passed + start, err
		}
		passed += c.sizes[i]
	}
	return passed, nil
}

// search returns the beginning of a line before which all entries are of the instant or earlier,
// and which is not far before the first later one.
func search(file *os.File, size, after int64) (int64, error) {
	low, high := int64(0), size
	for high-low > searchStep {
		middle := low + (high-low)/2
		start, time, ok := entryAt(file, middle, high)
		if ok && time <= after {
			low = start
		} else {
			high = middle
		}
	}
	return low, nil
}

// entryAt is the first entry of a file that begins at an offset or after it, unless none begins
// before the limit.
func entryAt(file io.ReaderAt, offset, limit int64) (start, time int64, ok bool) {
	block := make([]byte, 3*maxEntry)
	n, err := file.ReadAt(block, max(offset-1, 0))
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, false
	}
	rest, start := block[:n], max(offset-1, 0)
	if offset > 0 {
		end := bytes.IndexByte(rest, '\n') + 1
		if end == 0 {
			return 0, 0, false
		}
		rest, start = rest[end:], start+int64(end)
	}
	var p parser
	for start < limit {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return 0, 0, false
		}
		if e, ok := p.parse(rest[:end]); ok {
			return start, e.Time, true
		}
		rest, start = rest[end+1:], start+int64(end)+1
	}
	return 0, 0, false
}

// lineStart is the first beginning of a line at or after an offset, or the end.
func lineStart(file io.ReaderAt, offset, size int64) (int64, error) {
	if offset == 0 {
		return 0, nil
	}
	block := make([]byte, 2*maxEntry)
	n, err := file.ReadAt(block, offset-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	end := bytes.IndexByte(block[:n], '\n') + 1
	if end == 0 {
		return size, nil
	}
	return offset - 1 + int64(end), nil
}
