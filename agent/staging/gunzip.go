package staging

import (
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/clary-ml/clary/internal/fault"
)

// Bounds on what an object of gzip may become: honest data seldom shrinks to a hundredth.
const (
	maxInflation  = 250
	freeInflation = 64 << 20 // bytes that any object may become
)

// Gunzip decompresses an object of so many bytes, all members of it. What is no gzip, is
// damaged or would fill the disk is Invalid; an error of the source stays as it is.
func Gunzip(from io.Reader, size int64) io.Reader {
	return &gunzipper{from: &remembering{from: from}, left: size*maxInflation + freeInflation}
}

type gunzipper struct {
	from   *remembering
	zipped *gzip.Reader
	left   int64
}

func (g *gunzipper) Read(to []byte) (n int, err error) {
	if g.zipped == nil {
		if g.zipped, err = gzip.NewReader(g.from); err != nil {
			return 0, g.explain(err)
		}
	}
	if n, err = g.zipped.Read(to); err != nil && !errors.Is(err, io.EOF) {
		return n, g.explain(err)
	}
	if g.left -= int64(n); g.left < 0 {
		return 0, fault.New(fault.Invalid, "it becomes more than %d times its size when decompressed", maxInflation)
	}
	return n, err
}

// explain tells a damaged object from a source that failed.
func (g *gunzipper) explain(err error) error {
	if cause := g.from.err; cause != nil && !errors.Is(cause, io.EOF) {
		return cause
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fault.New(fault.Invalid, "it is no whole gzip: %w", err)
}

// remembering keeps the error of its source, which a decompressor may replace.
type remembering struct {
	from io.Reader
	err  error
}

func (r *remembering) Read(to []byte) (int, error) {
	n, err := r.from.Read(to)
	if err != nil {
		r.err = err
	}
	return n, err
}
