package batch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch/record"
)

// slot is a request on its way: its place in line is its place in the output. The slot that
// ends an object holds no records.
type slot struct {
	object  int
	last    bool
	records []byte          // one behind the other; of lines with a newline between them
	from    record.Position // of the first
	to      record.Position // behind the last
	count   int64
	numbers []int64 // of the lines, where they are not one behind the other

	done   chan struct{} // closed when answer and err are there
	answer []byte
	err    error
}

// blame says which record an error is of, as far as that is known.
func (s *slot) blame(err error) error {
	if err == nil || !fault.Is(err, fault.Invalid) {
		return err
	}
	first, last := s.numbers[0], s.numbers[len(s.numbers)-1]
	var row *rowError
	switch {
	case errors.As(err, &row) && row.row < len(s.numbers):
		return fault.New(fault.Invalid, "record %d: %w", s.numbers[row.row], err)
	case row != nil: // of a table that is one record
		return fault.New(fault.Invalid, "row %d: %w", row.row+1, err)
	case first == last:
		return fault.New(fault.Invalid, "record %d: %w", first, err)
	}
	return fault.New(fault.Invalid, "records %d to %d: %w", first, last, err)
}

// mark names the object that is failing, so that whoever cuts or sends leaves it.
type mark struct{ object atomic.Int64 }

func (m *mark) set(object int)     { m.object.Store(int64(object) + 1) }
func (m *mark) is(object int) bool { return m.object.Load() == int64(object)+1 }

// cutter makes slots of objects.
type cutter struct {
	*run
	line    chan<- *slot
	work    chan<- *slot
	skipped *mark
}

// all cuts from where the writer stands to the end.
func (c *cutter) all(ctx context.Context) error {
	defer close(c.line)
	defer close(c.work)
	at := c.writer.at
	for i := at.Object; i < len(c.objects); i++ {
		from := record.Position{}
		if i == at.Object {
			from = at.Position
		}
		if err := c.one(ctx, i, from); err != nil {
			return err
		}
	}
	return nil
}

// one cuts an object. What is wrong with it is told by its last slot.
func (c *cutter) one(ctx context.Context, i int, from record.Position) error {
	end := &slot{object: i, last: true, done: make(chan struct{})}
	close(end.done)
	if of := c.objects[i].clash; of != "" {
		end.err = fault.New(fault.Invalid, "its output would lie below %s, which is the output of %s: rename one of the two", of+Suffix, of)
	} else {
		end.to, end.err = c.batches(ctx, i, from)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if end.err != nil && !fault.Is(end.err, fault.Invalid) {
		return fault.New(fault.KindOf(end.err), "%s: %w", c.objects[i].name, end.err)
	}
	return c.queue(ctx, end)
}

// batches are cut from the position on by what fits, and so from the same place always the
// same way.
func (c *cutter) batches(ctx context.Context, i int, from record.Position) (record.Position, error) {
	file, err := os.Open(filepath.Join(c.Inputs, filepath.FromSlash(c.objects[i].name)))
	if err != nil {
		return from, fault.New(fault.Unready, "open it: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	if _, err := file.Seek(from.Offset, io.SeekStart); err != nil {
		return from, fault.New(fault.Unready, "read it: %w", err)
	}
	reader := record.NewReader(file, c.refine.Split, from, c.Limits.Payload)
	var batch *slot
	for {
		before := reader.At()
		data, err := reader.Next()
		if err != nil { // what is whole before a broken record is of no use
			if errors.Is(err, io.EOF) {
				return reader.At(), c.flush(ctx, batch)
			}
			return before, err
		}
		if c.skipped.is(i) {
			return before, nil
		}
		if batch != nil && !c.fits(batch, data) {
			if err := c.flush(ctx, batch); err != nil {
				return before, err
			}
			batch = nil
		}
		if batch == nil {
			batch = &slot{object: i, from: before, done: make(chan struct{})}
		} else if c.refine.Split == record.Line {
			batch.records = append(batch.records, '\n')
		}
		batch.records = append(batch.records, data...)
		batch.to = reader.At()
		batch.numbers = append(batch.numbers, batch.to.Number)
		batch.count++
	}
}

func (c *cutter) fits(batch *slot, data []byte) bool {
	return c.Limits.Strategy == Multi && int64(len(batch.records)+1+len(data)) <= c.Limits.Payload
}

// flush puts a batch into the line and then gives it to whoever is free.
func (c *cutter) flush(ctx context.Context, batch *slot) error {
	if batch == nil {
		return nil
	}
	if err := c.queue(ctx, batch); err != nil {
		return err
	}
	select {
	case c.work <- batch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *cutter) queue(ctx context.Context, s *slot) error {
	select {
	case c.line <- s:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cut records: %w", context.Cause(ctx))
	}
}
