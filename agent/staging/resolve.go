package staging

import (
	"context"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// statsAtOnce is how many objects of a manifest are looked up at a time.
const statsAtOnce = 32

// Share is the share of one task of a role in a sharded input.
type Share struct {
	Index int
	Count int // of tasks; 0 is 1
}

// part takes every Count-th of a list, from the Index-th on: each element belongs to
// exactly one task, and no task has two more than another. It is the number of objects
// that is balanced, as in SageMaker, not their bytes. There may be fewer objects than
// tasks; then some have none.
func part[T any](all []T, sharded bool, s Share) []T {
	if !sharded || s.Count <= 1 {
		return all
	}
	var mine []T
	for i := s.Index; i < len(all); i += s.Count {
		mine = append(mine, all[i])
	}
	return mine
}

// Item is one object of an input.
type Item struct {
	Bucket string
	Object
	Name string // of its file below the channel's folder, with slashes
}

// Resolve lists the objects of a task's share of an input, in the order of their keys, or
// of the manifest. The input itself must name something; a share may be empty. An augmented
// manifest has no objects but lines: see Lines.
func Resolve(ctx context.Context, store Reader, input cluster.Input, share Share) ([]Item, error) {
	items, err := resolve(ctx, store, input, share)
	if err == nil && input.Mode != cluster.InputPipe {
		err = checkNames(items)
	}
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "input %s: %s: %w", input.Channel, input.URI, err)
	}
	return items, nil
}

func resolve(ctx context.Context, store Reader, input cluster.Input, share Share) ([]Item, error) {
	bucket, key, err := ParseURI(input.URI)
	if err != nil {
		return nil, err
	}
	var items []Item
	switch input.Type {
	case cluster.InputPrefix:
		items, err = below(ctx, store, bucket, key)
	case cluster.InputManifest:
		items, err = listed(ctx, store, bucket, key)
	default:
		err = fault.New(fault.Invalid, "a channel of type %q is read as a pipe only", input.Type)
	}
	if err == nil && len(items) == 0 {
		err = fault.New(fault.NotFound, "there is no object at or below it")
	}
	if err != nil {
		return nil, err
	}
	items = part(items, input.Sharded, share)
	if input.Type == cluster.InputManifest {
		if err := describe(ctx, store, items); err != nil {
			return nil, err
		}
	}
	if input.Gzip {
		for i := range items {
			items[i].Name = unzippedName(items[i].Name)
		}
	}
	return items, nil
}

// below is the object of that very key, else all objects below it.
func below(ctx context.Context, store Reader, bucket, key string) ([]Item, error) {
	objects, prefix, err := find(ctx, store, bucket, key)
	if err != nil {
		return nil, err
	}
	items := make([]Item, 0, len(objects))
	for _, object := range objects {
		name, err := relative(object.Key, prefix)
		if err != nil {
			return nil, err
		}
		items = append(items, Item{Bucket: bucket, Object: object, Name: name})
	}
	return items, nil
}

// find returns the objects and the part of their keys that is not kept as path.
func find(ctx context.Context, store Reader, bucket, key string) ([]Object, string, error) {
	all, err := store.List(ctx, bucket, key)
	if err != nil {
		return nil, "", err
	}
	if key != "" && !strings.HasSuffix(key, "/") {
		for _, object := range all {
			if object.Key == key {
				return []Object{object}, key[:strings.LastIndexByte(key, '/')+1], nil
			}
		}
		key += "/"
	}
	var below []Object
	for _, object := range all {
		// A key that ends with '/' is a folder's marker, not data.
		if strings.HasPrefix(object.Key, key) && !strings.HasSuffix(object.Key, "/") {
			below = append(below, object)
		}
	}
	return below, key, nil
}

// listed are the objects that a manifest names, of which only bucket, key and name are
// known yet.
func listed(ctx context.Context, store Reader, bucket, key string) ([]Item, error) {
	body, _, err := store.Open(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // only read
	return parseManifest(body)
}

// describe asks the store for what a manifest does not say of the objects.
func describe(ctx context.Context, store Reader, items []Item) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(statsAtOnce)
	for i := range items {
		group.Go(func() error {
			object, err := store.Stat(ctx, items[i].Bucket, items[i].Key)
			if err != nil {
				return fault.New(fault.KindOf(err), "the manifest names s3://%s/%s: %w", items[i].Bucket, items[i].Key, err)
			}
			items[i].Object = object
			return nil
		})
	}
	return group.Wait()
}

// unzippedName is what a file is called once it is decompressed: without ".gz".
func unzippedName(name string) string {
	short := strings.TrimSuffix(name, ".gz")
	if short == "" || strings.HasSuffix(short, "/") {
		return name
	}
	return short
}

// checkNames refuses what no folder can hold: two files of one name, and a file that is
// the folder of another.
func checkNames(items []Item) error {
	folders := map[string]bool{}
	for _, item := range items {
		for folder := path.Dir(item.Name); folder != "." && !folders[folder]; folder = path.Dir(folder) {
			folders[folder] = true
		}
	}
	seen := make(map[string]bool, len(items))
	for _, item := range items {
		switch {
		case seen[item.Name]:
			return fault.New(fault.Invalid, "two objects become the file %q", cluster.Clip(item.Name))
		case folders[item.Name]:
			return fault.New(fault.Invalid, "object %q would be a file, and the folder of other files: rename it", cluster.Clip(item.Key))
		}
		seen[item.Name] = true
	}
	return nil
}
