package object

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"

	"github.com/clary-ml/clary/internal/fault"
)

// Part is a .tar.gz to merge: what it is called in a clash, and a way to read it.
type Part struct {
	Name string
	Open func() (io.ReadCloser, error)
}

// Clash is a name of a part that an earlier part has too, with other content.
type Clash struct {
	Name string // in the archive
	Part string
}

// Merge writes one .tar.gz with what is in all parts, in their order: the same parts make
// the same bytes. Of a name that is there twice the first is kept; that is a clash unless the
// content is the same. The first twenty clashes are returned.
func Merge(to io.Writer, parts []Part) ([]Clash, error) {
	zipped, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	m := merge{archive: tar.NewWriter(zipped), seen: map[string]digest{}}
	for _, part := range parts {
		if err := m.add(part); err != nil {
			return nil, fault.New(fault.KindOf(err), "merge %s: %w", part.Name, err)
		}
	}
	return m.clashes, errors.Join(m.archive.Close(), zipped.Close())
}

// mostClashes are enough to see what went wrong.
const mostClashes = 20

type digest [sha256.Size]byte

type merge struct {
	archive *tar.Writer
	seen    map[string]digest // what is in the archive, by name
	clashes []Clash
}

func (m *merge) add(part Part) error {
	body, err := part.Open()
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // only read
	from := &source{from: body}
	zipped, err := gzip.NewReader(from)
	if err != nil {
		return from.blame(err)
	}
	archive := tar.NewReader(zipped)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return from.blame(err)
		}
		if err := m.entry(part.Name, header, archive); err != nil {
			return from.blame(err)
		}
	}
}

// source remembers that it could not be read: that is not the fault of what was read.
type source struct {
	from io.Reader
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// blame says what is wrong: the store, what the archive is written to, or the archive.
func (s *source) blame(err error) error {
	var to unwritten
	switch {
	case s.err != nil:
		return fault.New(fault.Unready, "the connection was cut: %w", s.err)
	case errors.As(err, &to):
		return to.error
	}
	return fault.New(fault.Invalid, "it is no whole .tar.gz: %w", err)
}

// unwritten is an error of where the merged archive goes.
type unwritten struct{ error }

// entry adds one entry, or compares it with that of the name.
func (m *merge) entry(part string, header *tar.Header, content io.Reader) error {
	name := path.Clean(header.Name)
	sum := sha256.New()
	fmt.Fprintf(sum, "%c %s\n", header.Typeflag, header.Linkname)
	if known, there := m.seen[name]; there {
		if _, err := io.Copy(sum, content); err != nil {
			return err
		}
		if final(sum) != known && len(m.clashes) < mostClashes {
			m.clashes = append(m.clashes, Clash{name, part})
		}
		return nil
	}
	if err := m.archive.WriteHeader(header); err != nil {
		return unwritten{err}
	}
	if _, err := io.Copy(io.MultiWriter(m, sum), content); err != nil {
		return err
	}
	m.seen[name] = final(sum)
	return nil
}

// Write writes an entry's content.
func (m *merge) Write(p []byte) (int, error) {
	n, err := m.archive.Write(p)
	if err != nil {
		err = unwritten{err}
	}
	return n, err
}

func final(sum hash.Hash) digest { return digest(sum.Sum(nil)) }

// String names a clash for people.
func (c Clash) String() string { return c.Name + " of " + c.Part }
