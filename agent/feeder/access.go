package feeder

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"sync"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/s3store"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// WriteAccess says where the store is and with which keys, to all feeders of a node and at
// any time: they read it again when the store refuses them.
func WriteAccess(path string, config object.Config) error {
	text, err := json.Marshal(config)
	if err == nil {
		err = replace(path, text)
	}
	if err != nil {
		return fault.New(fault.Internal, "write the access to the object store: %w", err)
	}
	return nil
}

// OpenAccess is the store that the file says, now and after it has changed.
func OpenAccess(path string) (staging.Reader, error) {
	a := &access{path: path}
	_, err := a.load()
	return a, err
}

// access is a store whose place and keys may change.
type access struct {
	path string

	mu    sync.Mutex
	text  string
	store staging.Reader
}

// load reads the file and reports whether it says something new.
func (a *access) load() (bool, error) {
	text, err := os.ReadFile(a.path)
	if err != nil {
		return false, fault.New(fault.Unready, "this node knows no object store yet: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if string(text) == a.text {
		return false, nil
	}
	var config object.Config
	if err := json.Unmarshal(text, &config); err != nil {
		return false, fault.New(fault.Internal, "read the access to the object store: %w", err)
	}
	client, err := object.Open(config)
	if err != nil {
		return false, err
	}
	a.text, a.store = string(text), s3store.Store{Client: client}
	return true, nil
}

func (a *access) now() staging.Reader {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.store
}

// try asks the store, and once more if its place or keys turn out to have changed.
func (a *access) try(ask func(staging.Reader) error) error {
	err := ask(a.now())
	if fault.Is(err, fault.Denied) || fault.Is(err, fault.Unready) {
		if changed, _ := a.load(); changed {
			return ask(a.now())
		}
	}
	return err
}

// List implements staging.Reader.
func (a *access) List(ctx context.Context, bucket, prefix string) (listed []staging.Object, err error) {
	err = a.try(func(r staging.Reader) (err error) { listed, err = r.List(ctx, bucket, prefix); return err })
	return listed, err
}

// Stat implements staging.Reader.
func (a *access) Stat(ctx context.Context, bucket, key string) (found staging.Object, err error) {
	err = a.try(func(r staging.Reader) (err error) { found, err = r.Stat(ctx, bucket, key); return err })
	return found, err
}

// Open implements staging.Reader.
func (a *access) Open(ctx context.Context, bucket, key string) (body io.ReadCloser, found staging.Object, err error) {
	err = a.try(func(r staging.Reader) (err error) { body, found, err = r.Open(ctx, bucket, key); return err })
	return body, found, err
}

// OpenRange implements staging.Reader.
func (a *access) OpenRange(ctx context.Context, bucket string, o staging.Object, offset, length int64) (body io.ReadCloser, err error) {
	err = a.try(func(r staging.Reader) (err error) {
		body, err = r.OpenRange(ctx, bucket, o, offset, length)
		return err
	})
	return body, err
}
