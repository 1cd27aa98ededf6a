package staging

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// atOnce is how many objects of one task are fetched at a time.
const atOnce = 8

// Fetch puts the objects that an input names into its channel's folder: the object
// of that very key, else all objects below it. Files are as they are in the store:
// nothing is unpacked. Calling it again completes what an earlier call began.
func Fetch(ctx context.Context, store Store, cache *Cache, input cluster.Input, folder string) error {
	bucket, key, err := ParseURI(input.URI)
	if err != nil {
		return err
	}
	objects, prefix, err := find(ctx, store, bucket, key)
	if err != nil {
		return fault.New(fault.KindOf(err), "input %s: list %s: %w", input.Channel, input.URI, err)
	}
	if len(objects) == 0 {
		return fault.New(fault.NotFound, "input %s: there is no object at or below %s", input.Channel, input.URI)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, object := range objects {
		group.Go(func() error {
			name, err := relative(object.Key, prefix)
			if err == nil {
				err = cache.Place(ctx, store, bucket, object, filepath.Join(folder, filepath.FromSlash(name)))
			}
			if err != nil {
				return fault.New(fault.KindOf(err), "input %s: s3://%s/%s: %w", input.Channel, bucket, object.Key, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// find returns the objects and the part of their keys that is not kept as path.
func find(ctx context.Context, store Store, bucket, key string) ([]Object, string, error) {
	listed, err := store.List(ctx, bucket, key)
	if err != nil {
		return nil, "", err
	}
	if key != "" && !strings.HasSuffix(key, "/") {
		for _, object := range listed {
			if object.Key == key {
				return []Object{object}, key[:strings.LastIndexByte(key, '/')+1], nil
			}
		}
		key += "/"
	}
	var below []Object
	for _, object := range listed {
		// A key that ends with '/' is a folder's marker, not data.
		if strings.HasPrefix(object.Key, key) && !strings.HasSuffix(object.Key, "/") {
			below = append(below, object)
		}
	}
	return below, key, nil
}

// Restore fills a task's checkpoint folder from the newest earlier attempt that
// left any below the prefix, laid out as ATTEMPT/ROLE-INDEX/FILE. It returns that
// attempt's number, 0 if there was nothing.
func Restore(ctx context.Context, store Store, uri string, task cluster.Task, folder string) (int32, error) {
	bucket, prefix, err := ParseURI(uri)
	if err != nil {
		return 0, err
	}
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	objects, err := store.List(ctx, bucket, prefix)
	if err != nil {
		return 0, fault.New(fault.KindOf(err), "list checkpoints below %s: %w", uri, err)
	}
	newest, attempt := newestAttempt(objects, prefix, task)
	for _, object := range newest {
		name, err := relative(object.Key, checkpointPrefix(prefix, attempt, task))
		if err == nil {
			err = download(ctx, store, bucket, object, filepath.Join(folder, filepath.FromSlash(name)))
		}
		if err != nil {
			return 0, fault.New(fault.KindOf(err), "restore checkpoint s3://%s/%s: %w", bucket, object.Key, err)
		}
	}
	return attempt, nil
}

// download writes an object to a file that is not shared with the cache.
func download(ctx context.Context, store Store, bucket string, object Object, path string) error {
	temp, _, err := receive(ctx, store, bucket, object, filepath.Dir(path))
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}
