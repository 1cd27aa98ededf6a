package archive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// Read gives sink what the query wants of the segments in the store. It opens one at a time, and
// none that its name says holds nothing of interest. Follow means nothing here. A segment that is
// damaged is read as far as it can be, and told of at the end. whole says that the journal has ended
// and nothing of it is missing in the store but what its bound made go.
func Read(ctx context.Context, store Store, query journal.Query, sink journal.Sink) (whole bool, err error) {
	r := &reader{store: store}
	if r.listing, err = list(ctx, store); err != nil {
		return false, err
	}
	query, err = query.Cut(starts(r.segments), func(part journal.Query, sink journal.Sink) error { return r.read(ctx, part, sink) })
	if err != nil {
		return false, err
	}
	r.damaged = nil // what the look for the last lines met does not matter
	if err := r.read(ctx, query, sink); err != nil {
		return false, err
	}
	return r.complete, errors.Join(r.damaged...)
}

// starts are instants for Query.Cut to look from: ever more segments from the end.
func starts(segments []segment) []int64 {
	var starts []int64
	for back := 1; back < len(segments); back *= 4 {
		starts = append(starts, segments[len(segments)-back].first-1)
	}
	return starts
}

type reader struct {
	store Store
	listing
	damaged []error
}

func (r *reader) read(ctx context.Context, query journal.Query, sink journal.Sink) error {
	selection := query.Select()
	for tries := 0; ; tries++ {
		missing, err := r.pass(ctx, query, selection, sink)
		if err != nil || !missing || tries == 3 {
			return err
		}
		// It was written again with more in it, or was the oldest: what is there now goes on.
		if r.listing, err = list(ctx, r.store); err != nil {
			return err
		}
	}
}

// pass shows the selection all segments that may matter, and reports whether one was gone.
func (r *reader) pass(ctx context.Context, query journal.Query, selection *journal.Selection, sink journal.Sink) (missing bool, err error) {
	seen, first := max(query.After, query.Since-1, selection.Last()), 0
	for first < len(r.segments) && r.segments[first].last <= seen {
		first++
	}
	if query.Match != nil && first > 0 {
		first-- // where a line in pieces may begin
	}
	for _, s := range r.segments[first:] {
		if query.Until != 0 && s.first >= query.Until || selection.Over() {
			break
		}
		err := r.segment(ctx, s, selection, sink)
		if fault.Is(err, fault.NotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// segment shows one. What is wrong with its content is no error yet.
func (r *reader) segment(ctx context.Context, s segment, selection *journal.Selection, sink journal.Sink) error {
	body, err := r.store.Open(ctx, s.name())
	if err != nil {
		return err
	}
	packed, err := io.ReadAll(body) // it is small, and a lost connection is not a damaged segment
	if err = errors.Join(err, body.Close()); err != nil {
		return fault.New(fault.Unready, "read %s: %w", s.name(), err)
	}
	var sunk error
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err == nil {
		err = selection.Scan(ctx, unpacked, func(batch []journal.Entry) error {
			sunk = sink(batch)
			return sunk
		})
	}
	if sunk != nil || ctx.Err() != nil {
		return cmp.Or(sunk, context.Cause(ctx))
	}
	if err != nil {
		r.damaged = append(r.damaged, fault.New(fault.Internal, "the log's segment %s is damaged: %w", s.name(), err))
	}
	return nil
}
