package ingress

import (
	"context"
	"io"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// store is the cluster's object store, which is found when it is needed: it may move.
type store func(context.Context) (*object.Client, error)

// Put implements async.Store. A bucket that does not exist is made: beforehand, if content can be read only once.
func (s store) Put(ctx context.Context, to object.URI, content io.Reader, size int64) (info object.Info, err error) {
	client, err := s(ctx)
	if err != nil {
		return info, err
	}
	again, is := content.(io.Seeker)
	if !is {
		if err := client.EnsureBucket(ctx, to.Bucket); err != nil {
			return info, err
		}
		return client.Put(ctx, to, content, size)
	}
	info, err = client.Put(ctx, to, content, size)
	if !fault.Is(err, fault.NotFound) {
		return info, err
	}
	if err := client.EnsureBucket(ctx, to.Bucket); err != nil {
		return info, err
	}
	if _, err := again.Seek(0, io.SeekStart); err != nil {
		return info, fault.New(fault.Internal, "put %s: %w", to, err)
	}
	return client.Put(ctx, to, content, size)
}

// Open implements async.Store.
func (s store) Open(ctx context.Context, from object.URI, offset, length int64) (io.ReadCloser, object.Info, error) {
	client, err := s(ctx)
	if err != nil {
		return nil, object.Info{}, err
	}
	return client.Open(ctx, from, offset, length)
}

// Stat implements async.Store.
func (s store) Stat(ctx context.Context, of object.URI) (object.Info, error) {
	client, err := s(ctx)
	if err != nil {
		return object.Info{}, err
	}
	return client.Stat(ctx, of)
}

// List implements async.Store.
func (s store) List(ctx context.Context, prefix object.URI) ([]object.Info, error) {
	client, err := s(ctx)
	if err != nil {
		return nil, err
	}
	return client.List(ctx, prefix)
}

// Delete implements async.Store.
func (s store) Delete(ctx context.Context, at object.URI) error {
	client, err := s(ctx)
	if err != nil {
		return err
	}
	return client.Delete(ctx, at)
}
