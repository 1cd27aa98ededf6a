// Package s3store lets package staging work on an S3.
package s3store

import (
	"context"
	"io"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/storage/object"
)

// Store is a staging.Store over an S3 client.
type Store struct{ Client *object.Client }

var _ staging.Store = Store{}

// List returns all objects whose key begins with prefix.
func (s Store) List(ctx context.Context, bucket, prefix string) ([]staging.Object, error) {
	listed, err := s.Client.List(ctx, object.URI{Bucket: bucket, Key: prefix})
	if err != nil {
		return nil, err
	}
	objects := make([]staging.Object, 0, len(listed))
	for _, info := range listed {
		objects = append(objects, of(info))
	}
	return objects, nil
}

// Open reads an object. What it says of it was asked just before: content of
// another length, written in between, is found by its length.
func (s Store) Open(ctx context.Context, bucket, key string) (io.ReadCloser, staging.Object, error) {
	at := object.URI{Bucket: bucket, Key: key}
	info, err := s.Client.Stat(ctx, at)
	if err != nil {
		return nil, staging.Object{}, err
	}
	body, err := s.Client.Get(ctx, at, 0, -1)
	return body, of(info), err
}

// Put writes an object.
func (s Store) Put(ctx context.Context, bucket, key string, from io.Reader, size int64) error {
	_, err := s.Client.Put(ctx, object.URI{Bucket: bucket, Key: key}, from, size)
	return err
}

// Delete removes an object.
func (s Store) Delete(ctx context.Context, bucket, key string) error {
	return s.Client.Delete(ctx, object.URI{Bucket: bucket, Key: key})
}

func of(info object.Info) staging.Object {
	return staging.Object{Key: info.URI.Key, ETag: info.ETag, Size: info.Size}
}
