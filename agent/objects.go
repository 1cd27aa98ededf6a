package agent

import (
	"context"
	"io"
	"sync"

	"github.com/clary-ml/clary/agent/staging"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/storage/object"
)

// objects is the cluster's object store as coordinators last told where it is. Whoever
// asks before they did waits.
type objects struct {
	mu     sync.Mutex
	told   object.Config
	client *object.Client
	known  chan struct{}   // closed once there is a client
	made   map[string]bool // buckets that exist for sure
}

func newObjects() *objects { return &objects{known: make(chan struct{}), made: map[string]bool{}} }

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
	if o.client != nil && o.told.Endpoint == config.Endpoint && o.told.SecretKey == config.SecretKey {
		return nil
	}
	client, err := object.Open(config)
	if err != nil {
		return err
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
	infos, err := client.List(ctx, object.URI{Bucket: bucket, Key: prefix})
	if err != nil {
		return nil, err
	}
	listed := make([]staging.Object, len(infos))
	for i, info := range infos {
		listed[i] = staging.Object{Key: info.URI.Key, ETag: info.ETag, Size: info.Size}
	}
	return listed, nil
}

// Open implements staging.Store.
func (o *objects) Open(ctx context.Context, bucket, key string) (io.ReadCloser, staging.Object, error) {
	client, err := o.get(ctx)
	if err != nil {
		return nil, staging.Object{}, err
	}
	uri := object.URI{Bucket: bucket, Key: key}
	info, err := client.Stat(ctx, uri)
	if err != nil {
		return nil, staging.Object{}, err
	}
	body, err := client.Get(ctx, uri, 0, -1)
	return body, staging.Object{Key: key, ETag: info.ETag, Size: info.Size}, err
}

// Put implements staging.Store.
func (o *objects) Put(ctx context.Context, bucket, key string, from io.Reader, size int64) error {
	client, err := o.get(ctx)
	if err != nil {
		return err
	}
	if err := o.ensure(ctx, client, bucket); err != nil {
		return err
	}
	_, err = client.Put(ctx, object.URI{Bucket: bucket, Key: key}, from, size)
	return err
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

// Delete implements staging.Store.
func (o *objects) Delete(ctx context.Context, bucket, key string) error {
	client, err := o.get(ctx)
	if err != nil {
		return err
	}
	return client.Delete(ctx, object.URI{Bucket: bucket, Key: key})
}
