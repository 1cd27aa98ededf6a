// Package archive keeps journals in an object store: segments of their lines, compressed, below
// a prefix of each journal's own.
//
// A segment's name says what is in it: the times of its first and its last entry in Unix
// nanoseconds, zero-padded so that names sort, and its bytes before compression. Its content is
// gzip of the journal's own lines, in one member or several.
//
//	1795628409123456789-1795628470000000001-1048612.log.gz
//
// An empty object named "complete" says that the journal has ended and nothing of it is missing.
package archive

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// Store is a place for the segments of one journal. Its errors are of fault's kinds.
type Store interface {
	List(ctx context.Context) (names []string, err error)
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	Put(ctx context.Context, name string, content []byte) error
	Delete(ctx context.Context, name string) error
}

// In is the part of an object store below a prefix.
func In(client *object.Client, prefix object.URI) Store {
	prefix.Key = strings.TrimSuffix(prefix.Key, "/") + "/"
	return below{client, prefix}
}

type below struct {
	client *object.Client
	prefix object.URI
}

func (b below) List(ctx context.Context) ([]string, error) {
	found, err := b.client.List(ctx, b.prefix)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, info := range found {
		names = append(names, strings.TrimPrefix(info.URI.Key, b.prefix.Key))
	}
	return names, nil
}

func (b below) at(name string) object.URI {
	return object.URI{Bucket: b.prefix.Bucket, Key: b.prefix.Key + name}
}

func (b below) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.client.Get(ctx, b.at(name), 0, -1)
}

func (b below) Put(ctx context.Context, name string, content []byte) error {
	put := func() error {
		_, err := b.client.Put(ctx, b.at(name), bytes.NewReader(content), int64(len(content)))
		return err
	}
	err := put()
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	if err := b.client.EnsureBucket(ctx, b.prefix.Bucket); err != nil {
		return err
	}
	return put()
}

func (b below) Delete(ctx context.Context, name string) error {
	return b.client.Delete(ctx, b.at(name))
}

// segment is what a name says.
type segment struct {
	first, last int64 // Unix nanoseconds
	bytes       int64 // before compression
}

const (
	suffix   = ".log.gz"
	complete = "complete"
)

func (s segment) name() string {
	return fmt.Sprintf("%019d-%019d-%d%s", s.first, s.last, s.bytes, suffix)
}

func parseName(name string) (s segment, ok bool) {
	stem, ok := strings.CutSuffix(name, suffix)
	parts := strings.Split(stem, "-")
	if !ok || len(parts) != 3 {
		return s, false
	}
	for i, to := range []*int64{&s.first, &s.last, &s.bytes} {
		number, err := strconv.ParseInt(parts[i], 10, 64)
		if err != nil {
			return s, false
		}
		*to = number
	}
	return s, s.name() == name && s.first <= s.last
}

// listing is what a store has of a journal.
type listing struct {
	segments []segment // in order of time
	covered  []segment // whose entries are all in another one, which was written later
	complete bool
}

func list(ctx context.Context, store Store) (listing, error) {
	names, err := store.List(ctx)
	if err != nil && !fault.Is(err, fault.NotFound) { // there is no bucket yet
		return listing{}, err
	}
	var all []segment
	var l listing
	for _, name := range names {
		if s, ok := parseName(name); ok {
			all = append(all, s)
		}
		l.complete = l.complete || name == complete
	}
	slices.SortFunc(all, func(a, b segment) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(b.last, a.last), cmp.Compare(b.bytes, a.bytes))
	})
	last := int64(math.MinInt64)
	for _, s := range all {
		if s.last <= last {
			l.covered = append(l.covered, s)
			continue
		}
		l.segments, last = append(l.segments, s), s.last
	}
	return l, nil
}
