package staging_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// counted is a store that counts what is fetched and can cut fetches short.
type counted struct {
	stagingtest.Store
	opens *atomic.Int64
	cut   *atomic.Bool
	gate  chan struct{} // if not nil, fetches wait for it
}

func (c counted) Open(ctx context.Context, bucket, key string) (io.ReadCloser, staging.Object, error) {
	c.opens.Add(1)
	if c.gate != nil {
		<-c.gate
	}
	body, object, err := c.Store.Open(ctx, bucket, key)
	if err == nil && c.cut.Load() {
		body = io.NopCloser(io.LimitReader(body, object.Size/2))
	}
	return body, object, err
}

func newStore(t testing.TB, objects map[string]string) counted {
	t.Helper()
	dir, err := os.MkdirTemp("", "clary-staging")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	store := counted{stagingtest.Store{Dir: dir}, &atomic.Int64{}, &atomic.Bool{}, nil}
	for key, text := range objects {
		put(t, store, key, text)
	}
	return store
}

func put(t testing.TB, store staging.Store, key, text string) {
	t.Helper()
	if err := store.Put(t.Context(), "data", key, strings.NewReader(text), int64(len(text))); err != nil {
		t.Fatal(err)
	}
}

func newCache(t testing.TB, dir string, limit int64) *staging.Cache {
	t.Helper()
	cache, err := staging.OpenCache(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	return cache
}

func fetch(t testing.TB, store staging.Store, cache *staging.Cache, uri string) (folder string, err error) {
	t.Helper()
	folder = t.TempDir()
	_, err = staging.Fetch(t.Context(), store, cache, cluster.Input{Channel: "train", URI: uri}, staging.Share{}, folder)
	return folder, err
}

func read(t testing.TB, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAnInputIsAnObjectOrAllBelowAPrefix(t *testing.T) {
	store := newStore(t, map[string]string{"set/a.csv": "A", "set/deep/b.csv.gz": "B", "set.csv": "C", "settle": "D"})
	for uri, want := range map[string][]string{
		"s3://data/set":           {"a.csv", "deep/b.csv.gz"},
		"s3://data/set/":          {"a.csv", "deep/b.csv.gz"},
		"s3://data/set/deep/":     {"b.csv.gz"},
		"s3://data/set.csv":       {"set.csv"},
		"s3://data/set/deep":      {"b.csv.gz"},
		"s3://data/set/a.csv":     {"a.csv"},
		"s3://data":               {"set/a.csv", "set/deep/b.csv.gz", "set.csv", "settle"},
		"s3://data/set/none":      nil,
		"s3://nowhere/":           nil,
		"http://data/set":         nil,
		"s3:///set":               nil,
		"s3://data/set/a.csv/":    nil,
		"s3://data/se":            nil,
		"s3://data/set/deep/b.cs": nil,
	} {
		folder, err := fetch(t, store, newCache(t, t.TempDir(), 1<<20), uri)
		if (err == nil) != (want != nil) {
			t.Errorf("%s: %v", uri, err)
		}
		files := 0
		_ = filepath.WalkDir(folder, func(path string, item os.DirEntry, _ error) error {
			if !item.IsDir() {
				files++
			}
			return nil
		})
		if files != len(want) {
			t.Errorf("%s makes %d files, want %v", uri, files, want)
		}
		for _, name := range want {
			if read(t, folder, name) == "" {
				t.Errorf("%s: %s is empty", uri, name)
			}
		}
	}
}

func TestAKeyThatLeadsOutOfTheFolderIsRefused(t *testing.T) {
	for _, key := range []string{"set/../../etc/passwd", "set//x", "set/./x", "set/a/../b"} {
		store := listed{newStore(t, nil), staging.Object{Key: key}}
		if _, err := fetch(t, store, newCache(t, t.TempDir(), 1<<20), "s3://data/set/"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// listed is a store that lists one object that a folder could not hold.
type listed struct {
	counted
	object staging.Object
}

func (l listed) List(context.Context, string, string) ([]staging.Object, error) {
	return []staging.Object{l.object}, nil
}

func TestTheSecondTaskTakesItFromTheCacheAlsoAfterARestart(t *testing.T) {
	store, dir := newStore(t, map[string]string{"a": "hello"}), t.TempDir()
	for i := range 3 {
		folder, err := fetch(t, store, newCache(t, dir, 1<<20), "s3://data/a")
		if err != nil || read(t, folder, "a") != "hello" {
			t.Fatalf("fetch %d: %v", i, err)
		}
		if info, _ := os.Stat(filepath.Join(folder, "a")); info.Mode().Perm()&0o222 != 0 {
			t.Errorf("the file can be written: %v", info.Mode())
		}
	}
	if n := store.opens.Load(); n != 1 {
		t.Errorf("it was fetched %d times", n)
	}
}

func TestAnOverwrittenObjectIsFetchedAnew(t *testing.T) {
	store, cache := newStore(t, map[string]string{"a": "old"}), newCache(t, t.TempDir(), 1<<20)
	if _, err := fetch(t, store, cache, "s3://data/a"); err != nil {
		t.Fatal(err)
	}
	put(t, store, "a", "new")
	if folder, err := fetch(t, store, cache, "s3://data/a"); err != nil || read(t, folder, "a") != "new" {
		t.Errorf("the old one is used, or %v", err)
	}
}

func TestAFlippedByteInTheCacheIsFoundAndFetchedAgain(t *testing.T) {
	store, dir := newStore(t, map[string]string{"a": strings.Repeat("hello", 1000)}), t.TempDir()
	cache := newCache(t, dir, 1<<20)
	var told []string
	cache.Spoilt = func(uri, file string) { told = append(told, uri+" in "+filepath.Dir(file)) }
	if _, err := fetch(t, store, cache, "s3://data/a"); err != nil {
		t.Fatal(err)
	}
	files, _ := os.ReadDir(dir)
	file, err := os.OpenFile(filepath.Join(dir, files[0].Name()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte{'H'}, 2500); err != nil || file.Close() != nil {
		t.Fatal(err)
	}
	folder, err := fetch(t, store, cache, "s3://data/a")
	if err != nil || read(t, folder, "a") != strings.Repeat("hello", 1000) {
		t.Errorf("the damaged file was used, or %v", err)
	}
	if n := store.opens.Load(); n != 2 {
		t.Errorf("it was fetched %d times", n)
	}
	if len(told) != 1 || told[0] != "s3://data/a in "+dir {
		t.Errorf("it was told %q", told)
	}
}

func TestTasksThatWantTheSameAtOnceCauseOneFetch(t *testing.T) {
	store, cache := newStore(t, map[string]string{"a": "hello"}), newCache(t, t.TempDir(), 1<<20)
	store.gate = make(chan struct{})
	var group sync.WaitGroup
	for i := range 20 {
		path := filepath.Join(t.TempDir(), fmt.Sprint(i))
		group.Go(func() {
			if _, err := staging.Fetch(t.Context(), store, cache, cluster.Input{Channel: "c", URI: "s3://data/a"}, staging.Share{}, path); err != nil {
				t.Error(err)
			}
		})
	}
	close(store.gate)
	group.Wait()
	if n := store.opens.Load(); n != 1 {
		t.Errorf("it was fetched %d times", n)
	}
}

func TestACutFetchIsAnErrorAndLeavesNothing(t *testing.T) {
	store, dir := newStore(t, map[string]string{"a": "hello hello"}), t.TempDir()
	store.cut.Store(true)
	cache := newCache(t, dir, 1<<20)
	if _, err := fetch(t, store, cache, "s3://data/a"); !fault.Is(err, fault.Unready) {
		t.Errorf("error %v", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left in the cache: %v", files)
	}
	store.cut.Store(false)
	if folder, err := fetch(t, store, cache, "s3://data/a"); err != nil || read(t, folder, "a") != "hello hello" {
		t.Errorf("trying again: %v", err)
	}
}

func TestWhatATaskUsesIsNeverEvicted(t *testing.T) {
	store := newStore(t, map[string]string{"a": strings.Repeat("a", 600), "b": strings.Repeat("b", 600), "big": strings.Repeat("c", 2000)})
	// Memory's file system has no reflinks, so that hard links are used.
	root, err := os.MkdirTemp("/dev/shm", "clary-cache")
	if err != nil {
		root = t.TempDir()
	}
	defer os.RemoveAll(root) //nolint:errcheck // in memory
	dir, first := filepath.Join(root, "cache"), filepath.Join(root, "task")
	cache := newCache(t, dir, 1000)
	_, err = staging.Fetch(t.Context(), store, cache, cluster.Input{URI: "s3://data/a"}, staging.Share{}, first)
	if err != nil {
		t.Fatal(err)
	}
	if files, _ := os.ReadDir(dir); links(t, filepath.Join(dir, files[0].Name())) < 2 {
		t.Skip("this file system shares blocks: the task has a copy of its own, and nothing is in use")
	}
	for _, key := range []string{"b", "big"} { // no room while a is in use: not cached, yet given
		if folder, err := fetch(t, store, cache, "s3://data/"+key); err != nil || len(read(t, folder, key)) < 600 {
			t.Errorf("%s: %v", key, err)
		}
	}
	if stats := cache.Stats(); stats.Files != 1 || stats.Bytes != 600 {
		t.Errorf("the cache holds %+v, not what is in use", stats)
	}
	before := store.opens.Load()
	if err := cache.Place(t.Context(), store, "data", objectOf(t, store, "a"), filepath.Join(root, "other", "a")); err != nil || store.opens.Load() != before {
		t.Errorf("what a task uses was evicted: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(root, "other")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(first); err != nil { // the task is gone: now a may go too
		t.Fatal(err)
	}
	if _, err := fetch(t, store, cache, "s3://data/b"); err != nil {
		t.Fatal(err)
	}
	opens := store.opens.Load()
	if _, err := fetch(t, store, cache, "s3://data/b"); err != nil || store.opens.Load() != opens {
		t.Errorf("b did not take the place of a: %v", err)
	}
}

func objectOf(t *testing.T, store staging.Store, key string) staging.Object {
	t.Helper()
	objects, err := store.List(t.Context(), "data", key)
	if err != nil || len(objects) == 0 {
		t.Fatal(objects, err)
	}
	return objects[0]
}

func links(t *testing.T, path string) uint64 {
	t.Helper()
	var info syscall.Stat_t
	if err := syscall.Stat(path, &info); err != nil {
		t.Fatal(err)
	}
	return info.Nlink
}

// The cache never holds more than its limit, always gives the right content, and
// forgets the least recently used first: checked against a list kept in order.
func TestCacheLaw(t *testing.T) {
	evictions, hits := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "law")
		if err != nil {
			r.Fatal(err)
		}
		store := newStore(t, nil)
		sizes := map[string]int{}
		for i := range 5 {
			key := string(rune('a' + i))
			sizes[key] = rapid.IntRange(1, 60).Draw(r, "size")
			put(t, store, key, strings.Repeat(key, sizes[key]))
		}
		limit := rapid.IntRange(30, 150).Draw(r, "limit")
		cache := newCache(t, filepath.Join(dir, "cache"), int64(limit))
		var order []string // least recently used first
		used := 0
		for range rapid.IntRange(5, 25).Draw(r, "steps") {
			key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(r, "key")
			before := store.opens.Load()
			path := filepath.Join(dir, "task")
			if _, err := staging.Fetch(t.Context(), store, cache, cluster.Input{URI: "s3://data/" + key}, staging.Share{}, path); err != nil {
				r.Fatal(err)
			}
			if read(t, path, key) != strings.Repeat(key, sizes[key]) {
				r.Fatalf("%s has another content", key)
			}
			if err := os.RemoveAll(path); err != nil {
				r.Fatal(err)
			}
			at := -1
			for i, k := range order {
				if k == key {
					at = i
				}
			}
			if fetched := store.opens.Load() > before; fetched == (at >= 0) {
				r.Fatalf("%s: fetched %v, but the model holds %v", key, fetched, order)
			}
			if at >= 0 {
				hits++
				order = append(append(order[:at:at], order[at+1:]...), key)
				continue
			}
			if sizes[key] > limit {
				continue
			}
			for used+sizes[key] > limit {
				evictions++
				used -= sizes[order[0]]
				order = order[1:]
			}
			used += sizes[key]
			order = append(order, key)
			if stats := cache.Stats(); int(stats.Bytes) != used || stats.Bytes > int64(limit) {
				r.Fatalf("the cache holds %+v, the model %d", stats, used)
			}
		}
	})
	if evictions == 0 || hits == 0 {
		t.Errorf("the law was tried on %d evictions and %d hits", evictions, hits)
	}
}
