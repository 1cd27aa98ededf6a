// Package s3store lets package staging work on an S3.
package s3store

import (
	"context"
	"io"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/internal/fault"
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

// Stat describes an object.
func (s Store) Stat(ctx context.Context, bucket, key string) (staging.Object, error) {
	info, err := s.Client.Stat(ctx, object.URI{Bucket: bucket, Key: key})
	return of(info), err
}

// Open reads an object.
func (s Store) Open(ctx context.Context, bucket, key string) (io.ReadCloser, staging.Object, error) {
	body, info, err := s.Client.Open(ctx, object.URI{Bucket: bucket, Key: key}, 0, -1)
	return body, of(info), err
}

// OpenRange reads a part of an object.
func (s Store) OpenRange(ctx context.Context, bucket string, o staging.Object, offset, length int64) (io.ReadCloser, error) {
	at := object.URI{Bucket: bucket, Key: o.Key}
	body, info, err := s.Client.Open(ctx, at, offset, length)
	if err == nil && info.ETag != o.ETag {
		_ = body.Close()
		return nil, fault.New(fault.Conflict, "%s was overwritten while it was read: start again", at)
	}
	return body, err
}

// Put writes an object.
func (s Store) Put(ctx context.Context, bucket, key string, from io.Reader, size int64) error {
	_, err := s.Client.Put(ctx, object.URI{Bucket: bucket, Key: key}, from, size)
	return err
}

// Copy copies an object inside the store.
func (s Store) Copy(ctx context.Context, bucket, key, toBucket, toKey string) error {
	return s.Client.Copy(ctx, object.URI{Bucket: toBucket, Key: toKey}, object.URI{Bucket: bucket, Key: key})
}

// Delete removes an object.
func (s Store) Delete(ctx context.Context, bucket, key string) error {
	return s.Client.Delete(ctx, object.URI{Bucket: bucket, Key: key})
}

func of(info object.Info) staging.Object {
	return staging.Object{Key: info.URI.Key, ETag: info.ETag, Size: info.Size}
}
