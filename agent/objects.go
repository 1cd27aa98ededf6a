package agent

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/clary-ml/clary/agent/feeder"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/s3store"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/storage/object"
)

// objects is the cluster's object store as coordinators last told where it is. Whoever
// asks before they did waits.
type objects struct {
	access string // file that says the same to feeders
	log    *slog.Logger

	mu     sync.Mutex
	told   object.Config
	client *object.Client
	known  chan struct{}   // closed once there is a client
	made   map[string]bool // buckets that exist for sure
}

// accessFile is where feeders read which store there is.
const accessFile = "objects.json"

func newObjects(access string, log *slog.Logger) *objects {
	return &objects{access: access, log: log, known: make(chan struct{}), made: map[string]bool{}}
}

// learn takes what a coordinator's welcome says.
func (o *objects) learn(told *claryv1.ObjectStore) error {
	if told == nil {
		return nil // the coordinator does not know yet: it will be asked again
	}
	config := object.Config{
		Endpoint: told.GetEndpoint(), AccessKey: told.GetAccessKey(), SecretKey: told.GetSecretKey(), Region: told.GetRegion(),
		CA: told.GetCaPem(), Insecure: told.GetPlaintext(),
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.client != nil && o.told.Endpoint == config.Endpoint && o.told.SecretKey == config.SecretKey && bytes.Equal(o.told.CA, config.CA) {
		return nil
	}
	client, err := object.Open(config)
	if err != nil {
		return err
	}
	if err := feeder.WriteAccess(o.access, config); err != nil { // a full disk must not cut the node off
		o.log.Warn("tasks cannot read inputs lazily", "error", err)
	}
	if o.client == nil {
		close(o.known)
	}
	o.client, o.told = client, config
	return nil
}

func (o *objects) get(ctx context.Context) (*object.Client, error) {
	select {
	case <-o.known:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.client, nil
}

// List implements staging.Store.
func (o *objects) List(ctx context.Context, bucket, prefix string) ([]staging.Object, error) {
	client, err := o.get(ctx)
	if err != nil {
		return nil, err
	}
	return s3store.Store{Client: client}.List(ctx, bucket, prefix)
}

// Open implements staging.Store.
func (o *objects) Open(ctx context.Context, bucket, key string) (io.ReadCloser, staging.Object, error) {
	client, err := o.get(ctx)
	if err != nil {
		return nil, staging.Object{}, err
	}
	return s3store.Store{Client: client}.Open(ctx, bucket, key)
}

// Stat implements staging.Store.
func (o *objects) Stat(ctx context.Context, bucket, key string) (staging.Object, error) {
	client, err := o.get(ctx)
	if err != nil {
		return staging.Object{}, err
	}
	return s3store.Store{Client: client}.Stat(ctx, bucket, key)
}

// OpenRange implements staging.Store.
func (o *objects) OpenRange(ctx context.Context, bucket string, object staging.Object, offset, length int64) (io.ReadCloser, error) {
	client, err := o.get(ctx)
	if err != nil {
		return nil, err
	}
	return s3store.Store{Client: client}.OpenRange(ctx, bucket, object, offset, length)
}

// Put implements staging.Store. The bucket is made if it does not exist.
func (o *objects) Put(ctx context.Context, bucket, key string, from io.Reader, size int64) error {
	client, err := o.get(ctx)
	if err != nil {
		return err
	}
	if err := o.ensure(ctx, client, bucket); err != nil {
		return err
	}
	return s3store.Store{Client: client}.Put(ctx, bucket, key, from, size)
}

// ensure makes the bucket, unless it was made or found before.
func (o *objects) ensure(ctx context.Context, client *object.Client, bucket string) error {
	o.mu.Lock()
	made := o.made[bucket]
	o.mu.Unlock()
	if made {
		return nil
	}
	if err := client.EnsureBucket(ctx, bucket); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.made[bucket] = true
	return nil
}

// Copy implements staging.Store. The bucket is made if it does not exist.
func (o *objects) Copy(ctx context.Context, bucket, key, toBucket, toKey string) error {
	client, err := o.get(ctx)
	if err != nil {
		return err
	}
	if err := o.ensure(ctx, client, toBucket); err != nil {
		return err
	}
	return s3store.Store{Client: client}.Copy(ctx, bucket, key, toBucket, toKey)
}

// Delete implements staging.Store.
func (o *objects) Delete(ctx context.Context, bucket, key string) error {
	client, err := o.get(ctx)
	if err != nil {
		return err
	}
	return s3store.Store{Client: client}.Delete(ctx, bucket, key)
}
