package staging

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// atOnce is how many objects of one task are fetched at a time.
const atOnce = 8

// Fetch puts the task's share of an input's objects into its channel's folder: the object
// of that very key, all objects below it, or those that a manifest names. Files are as they
// are in the store, or decompressed if the input says that they are gzip; then ".gz" goes
// from their names. Calling it again completes what an earlier call began.
func Fetch(ctx context.Context, store Reader, cache *Cache, input cluster.Input, share Share, folder string) (Tally, error) {
	items, err := Resolve(ctx, store, input, share)
	if err != nil {
		return Tally{}, err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil { // a share may be empty
		return Tally{}, fault.New(fault.Internal, "input %s: %w", input.Channel, err)
	}
	tally := Tally{Objects: len(items)}
	var fetched, bytes atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, item := range items {
		group.Go(func() error {
			asked, err := cache.place(ctx, store, item.Bucket, item.Object, input.Gzip, filepath.Join(folder, filepath.FromSlash(item.Name)))
			if err != nil {
				return fault.New(fault.KindOf(err), "input %s: s3://%s/%s: %w", input.Channel, item.Bucket, item.Key, err)
			}
			if asked {
				fetched.Add(1)
				bytes.Add(item.Size)
			}
			return nil
		})
	}
	if err = group.Wait(); err == nil && input.SHA256 != "" {
		err = verify(input, items, folder)
	}
	if err == nil {
		cache.note(input.URI, items, input.Gzip)
	}
	tally.Fetched, tally.Bytes = int(fetched.Load()), bytes.Load()
	return tally, err
}

// verify refuses any other content than the one that was meant when the job was submitted.
func verify(input cluster.Input, items []Item, folder string) error {
	if len(items) != 1 {
		return fault.New(fault.Invalid, "input %s: %s has %d objects where one is meant", input.Channel, input.URI, len(items))
	}
	file, err := os.Open(filepath.Join(folder, filepath.FromSlash(items[0].Name)))
	if err != nil {
		return fault.New(fault.Internal, "input %s: %w", input.Channel, err)
	}
	defer file.Close() //nolint:errcheck // only read
	digest := sha256.New()
	if _, err := io.Copy(digest, file); err != nil {
		return fault.New(fault.Internal, "input %s: %w", input.Channel, err)
	}
	if sum := hex.EncodeToString(digest.Sum(nil)); sum != input.SHA256 {
		return fault.New(fault.Invalid, "input %s: %s has SHA-256 %s, and %s is meant: somebody has replaced it", input.Channel, input.URI, sum, input.SHA256)
	}
	return nil
}

// FetchModel puts a model into its folder: a .tar.gz unpacked, anything else as Fetch does.
// scratch is a folder of the agent's own.
func FetchModel(ctx context.Context, store Reader, cache *Cache, input cluster.Input, scratch, folder string) (Tally, error) {
	if !strings.HasSuffix(input.URI, ".tar.gz") && !strings.HasSuffix(input.URI, ".tgz") {
		return Fetch(ctx, store, cache, input, Share{}, folder)
	}
	packed := filepath.Join(scratch, "model")
	tally, err := Fetch(ctx, store, cache, input, Share{}, packed)
	if err != nil {
		return tally, err
	}
	file, err := os.Open(filepath.Join(packed, path.Base(input.URI)))
	if err != nil {
		return tally, fault.New(fault.Internal, "model %s: %w", input.URI, err)
	}
	defer file.Close() //nolint:errcheck // only read
	if err := unpack(file, folder, "", modelBounds(), nil); err != nil {
		return tally, fault.New(fault.KindOf(err), "model %s: %w", input.URI, err)
	}
	return tally, os.RemoveAll(packed)
}

// Tally is how many objects an input had, and what of them was not in the cache.
type Tally struct {
	Objects int
	Fetched int   // objects
	Bytes   int64 // that were fetched
}

// Restore fills a task's checkpoint folder from the newest earlier attempt that
// left any below the prefix, laid out as ATTEMPT/ROLE-INDEX/FILE. It returns that
// attempt's number, 0 if there was nothing. A task of an elastic role may have another's: see earlier.
func Restore(ctx context.Context, store Reader, uri string, task cluster.Task, elastic bool, folder string) (int32, error) {
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
	found, attempt, err := earlier(objects, prefix, task, elastic)
	if err != nil {
		return 0, fault.New(fault.KindOf(err), "restore checkpoints below %s: %w", uri, err)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		object := found[name]
		if err := download(ctx, store, bucket, object, filepath.Join(folder, filepath.FromSlash(name))); err != nil {
			return 0, fault.New(fault.KindOf(err), "restore checkpoint s3://%s/%s: %w", bucket, object.Key, err)
		}
	}
	return attempt, nil
}

// download writes an object to a file that is not shared with the cache.
func download(ctx context.Context, store Reader, bucket string, object Object, path string) error {
	got, err := receive(ctx, store, bucket, object, false, filepath.Dir(path))
	if err != nil {
		return err
	}
	if err := os.Rename(got.temp, path); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}
