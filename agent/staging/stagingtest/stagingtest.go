// Package stagingtest has a working object store in a folder, for tests of what
// uses package staging.
package stagingtest

import (
	"context"
	"crypto/md5" //nolint:gosec // an ETag, as S3 makes it
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/internal/fault"
)

// Store keeps objects as files below Dir/BUCKET.
type Store struct{ Dir string }

var _ staging.Store = Store{}

func (s Store) path(bucket, key string) string {
	return filepath.Join(s.Dir, bucket, filepath.FromSlash(key))
}

// List returns the objects whose key begins with prefix, in order.
func (s Store) List(_ context.Context, bucket, prefix string) ([]staging.Object, error) {
	var found []staging.Object
	root := filepath.Join(s.Dir, bucket)
	err := filepath.WalkDir(root, func(path string, item fs.DirEntry, err error) error {
		if err != nil || item.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if key := filepath.ToSlash(name); err == nil && strings.HasPrefix(key, prefix) && !strings.HasPrefix(item.Name(), ".put-") {
			text, err := os.ReadFile(path)
			found = append(found, object(key, text))
			return err
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return found, err
}

func object(key string, text []byte) staging.Object {
	sum := md5.Sum(text) //nolint:gosec // an ETag
	return staging.Object{Key: key, ETag: hex.EncodeToString(sum[:]), Size: int64(len(text))}
}

// Stat describes an object.
func (s Store) Stat(ctx context.Context, bucket, key string) (staging.Object, error) {
	_, found, err := s.Open(ctx, bucket, key)
	return found, err
}

// OpenRange reads a part of an object.
func (s Store) OpenRange(ctx context.Context, bucket string, o staging.Object, offset, length int64) (io.ReadCloser, error) {
	body, now, err := s.Open(ctx, bucket, o.Key)
	switch {
	case err != nil:
		return nil, err
	case now.ETag != o.ETag:
		return nil, fault.New(fault.Conflict, "s3://%s/%s was overwritten while it was read: start again", bucket, o.Key)
	case offset < 0 || length <= 0 || offset >= now.Size:
		return nil, fault.New(fault.Invalid, "s3://%s/%s: %d bytes from %d of %d", bucket, o.Key, length, offset, now.Size)
	}
	_, err = io.CopyN(io.Discard, body, offset)
	return io.NopCloser(io.LimitReader(body, length)), err
}

// Open reads an object.
func (s Store) Open(_ context.Context, bucket, key string) (io.ReadCloser, staging.Object, error) {
	text, err := os.ReadFile(s.path(bucket, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, staging.Object{}, fault.New(fault.NotFound, "there is no object s3://%s/%s", bucket, key)
	}
	return io.NopCloser(strings.NewReader(string(text))), object(key, text), err
}

// Put writes an object at once.
func (s Store) Put(_ context.Context, bucket, key string, from io.Reader, size int64) error {
	path := s.path(bucket, key)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".put-*")
	if err != nil {
		return err
	}
	n, err := io.Copy(temp, io.LimitReader(from, size))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return os.Rename(temp.Name(), path)
}

// Copy copies an object.
func (s Store) Copy(ctx context.Context, bucket, key, toBucket, toKey string) error {
	body, found, err := s.Open(ctx, bucket, key)
	if err != nil {
		return err
	}
	return s.Put(ctx, toBucket, toKey, body, found.Size)
}

// Delete removes an object.
func (s Store) Delete(_ context.Context, bucket, key string) error {
	err := os.Remove(s.path(bucket, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
