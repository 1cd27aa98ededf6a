package pipe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	ahead    = 8         // pieces that are fetched before they are needed
	smallest = 512 << 10 // bytes; what is larger is streamed when its turn comes
	copySize = 256 << 10
)

// piece is what stands between two others in the pipe: an object, or bytes of a manifest.
type piece struct {
	bucket string
	object staging.Object
	known  bool // the object's size and ETag are
	inline []byte
}

// fetched is a piece that can be read.
type fetched struct {
	piece
	body io.ReadCloser
	err  error
}

// write sends one epoch: all pieces in their order. Small ones are fetched ahead.
func (c Config) write(ctx context.Context, to io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan chan fetched, ahead)
	produced := make(chan error, 1)
	go func() {
		defer close(queue)
		produced <- c.each(ctx, func(p piece) error {
			result := make(chan fetched, 1)
			select {
			case queue <- result:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			go func() { result <- c.fetch(ctx, p) }()
			return nil
		})
	}()
	var failed error
	for result := range queue {
		next := <-result
		if failed == nil {
			if failed = c.send(to, next); failed != nil {
				cancel() // what is on its way is not wanted any more
			}
		}
		if next.body != nil {
			_ = next.body.Close()
		}
	}
	cancel()
	if err := <-produced; failed == nil {
		return err
	}
	return failed
}

// each names the pieces of an epoch.
func (c Config) each(ctx context.Context, do func(piece) error) error {
	if c.Input.Type != cluster.InputAugmentedManifest {
		for _, item := range c.Items {
			if err := do(piece{bucket: item.Bucket, object: item.Object, known: true}); err != nil {
				return err
			}
		}
		return nil
	}
	return staging.Lines(ctx, c.Store, c.Input, c.Share, func(values []staging.Value) error {
		for _, value := range values {
			p := piece{bucket: value.Bucket, object: value.Object}
			if value.Bucket == "" {
				p.inline = value.Inline
				if !c.Input.RecordIO {
					p.inline = append(p.inline, '\n') // nothing else ends it
				}
			}
			if err := do(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// fetch makes a piece readable. A small object is in memory then.
func (c Config) fetch(ctx context.Context, p piece) fetched {
	if p.bucket == "" {
		return fetched{piece: p, body: io.NopCloser(bytes.NewReader(p.inline))}
	}
	if !p.known {
		object, err := c.Store.Stat(ctx, p.bucket, p.object.Key)
		if err != nil {
			return fetched{piece: p, err: err}
		}
		p.object = object
	}
	body := staging.OpenWhole(ctx, c.Store, p.bucket, p.object)
	if p.object.Size > smallest {
		return fetched{piece: p, body: body}
	}
	text := make([]byte, p.object.Size)
	_, err := io.ReadFull(body, text)
	err = errors.Join(err, body.Close())
	return fetched{piece: p, body: io.NopCloser(bytes.NewReader(text)), err: err}
}

// send writes one piece.
func (c Config) send(to io.Writer, f fetched) error {
	err := f.err
	if err == nil {
		err = c.wrap(to, f)
	}
	if err != nil && f.bucket != "" && !errors.Is(err, errClosed) {
		return fault.New(fault.KindOf(err), "s3://%s/%s: %w", f.bucket, f.object.Key, err)
	}
	return err
}

// wrap writes a piece as it is to be read: decompressed, as a record, or as it is.
func (c Config) wrap(to io.Writer, f fetched) error {
	gunzip := c.Input.Gzip && f.bucket != ""
	size := f.object.Size
	if f.bucket == "" {
		size = int64(len(f.inline))
	}
	var from io.Reader = f.body
	if gunzip {
		from = staging.Gunzip(from, size)
	}
	if !c.Input.RecordIO {
		return copyTo(to, from)
	}
	if gunzip { // a record begins with its length
		spool, err := os.CreateTemp(c.Scratch, ".record-*")
		if err != nil {
			return err
		}
		defer spool.Close()           //nolint:errcheck // nothing of it is kept
		defer os.Remove(spool.Name()) //nolint:errcheck // nor its name
		if size, err = io.Copy(spool, io.LimitReader(from, maxRecord+1)); err != nil {
			return err
		}
		if _, err := spool.Seek(0, io.SeekStart); err != nil {
			return err
		}
		from = spool
	}
	return writeRecord(to, from, size)
}

// copyTo copies through a buffer that suits a pipe.
func copyTo(to io.Writer, from io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, copySize))
	return err
}
