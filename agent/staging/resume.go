package staging

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// resumeFor is how long a read goes on trying, without a byte, before it gives up.
const resumeFor = 30 * time.Second

// OpenWhole reads a whole object, from where it was cut if the connection is. It is the
// object that was described, or an error: never half of one and half of another. It does
// not connect before it is read.
func OpenWhole(ctx context.Context, store Reader, bucket string, object Object) io.ReadCloser {
	return OpenRange(ctx, store, bucket, object, 0, object.Size)
}

// OpenRange is OpenWhole for length bytes from offset on.
func OpenRange(ctx context.Context, store Reader, bucket string, object Object, offset, length int64) io.ReadCloser {
	return &resuming{ctx: ctx, store: store, bucket: bucket, object: object, at: offset, end: offset + length}
}

// resuming is no longer than one use: the context is its reader's.
type resuming struct {
	ctx     context.Context //nolint:containedctx // an io.Reader takes none
	store   Reader
	bucket  string
	object  Object
	at, end int64
	body    io.ReadCloser
	failing time.Time // since when nothing came
}

// Read gives what there is, or an error that trying again would not mend.
func (s *resuming) Read(to []byte) (int, error) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		if s.at >= s.end {
			return 0, io.EOF
		}
		n, err := s.once(to)
		if n > 0 {
			s.failing = time.Time{}
			return n, nil
		}
		if err == nil {
			continue
		}
		if s.failing.IsZero() {
			s.failing = time.Now()
		}
		if s.ctx.Err() != nil {
			return 0, context.Cause(s.ctx)
		}
		if !fault.Is(err, fault.Unready) || time.Since(s.failing) > resumeFor {
			return 0, err
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return 0, context.Cause(s.ctx)
		}
	}
}

func (s *resuming) once(to []byte) (int, error) {
	if s.body == nil {
		body, err := s.store.OpenRange(s.ctx, s.bucket, s.object, s.at, s.end-s.at)
		if err != nil {
			return 0, err
		}
		s.body = body
	}
	n, err := s.body.Read(to[:min(int64(len(to)), s.end-s.at)])
	s.at += int64(n)
	if err != nil {
		err = errors.Join(err, s.Close())
		return n, fault.New(fault.Unready, "s3://%s/%s: the connection was cut at byte %d of %d: %w", s.bucket, s.object.Key, s.at, s.end, err)
	}
	return n, nil
}

// Close lets go of the connection.
func (s *resuming) Close() error {
	if s.body == nil {
		return nil
	}
	body := s.body
	s.body = nil
	return body.Close()
}
