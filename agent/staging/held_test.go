package staging_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
)

// holds checks which inputs a cache says that it has.
func holds(t *testing.T, when string, cache *staging.Cache, uris ...string) {
	t.Helper()
	want := []uint32{}
	for _, uri := range uris {
		want = append(want, cluster.InputDigest(uri))
	}
	slices.Sort(want)
	if got := cache.Inputs(); !slices.Equal(got, want) {
		t.Errorf("%s: it has %x, want %x", when, got, want)
	}
}

func TestACacheKnowsTheInputsThatAreWholeInItAlsoWhenItIsOpenedAgain(t *testing.T) {
	store := newStore(t, map[string]string{"set/a": "A", "set/b": "B", "big": "1234"})
	dir := t.TempDir()
	cache := newCache(t, dir, 5)
	holds(t, "empty", cache)
	used := func(uri string) {
		t.Helper()
		folder, err := fetch(t, store, cache, uri)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(folder); err != nil { // what is linked is not evicted
			t.Fatal(err)
		}
	}
	used("s3://data/set/a")
	holds(t, "one", cache, "s3://data/set/a")
	used("s3://data/set/")
	holds(t, "both", cache, "s3://data/set/a", "s3://data/set/")
	cache = newCache(t, dir, 5)
	holds(t, "opened again", cache, "s3://data/set/a", "s3://data/set/")
	used("s3://data/set/b")
	used("s3://data/set/a")
	used("s3://data/big") // for it b goes, which is older
	holds(t, "without b", cache, "s3://data/set/a", "s3://data/big")
	cache = newCache(t, dir, 5)
	holds(t, "without b, opened again", cache, "s3://data/set/a", "s3://data/big")
	cache = newCache(t, dir, 0)
	holds(t, "of no size", cache)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestAnInputThatFindsNoRoomIsNotSaidToBeInTheCache(t *testing.T) {
	store := newStore(t, map[string]string{"set/a": "A", "set/large": "123456"})
	cache := newCache(t, t.TempDir(), 5)
	if _, err := fetch(t, store, cache, "s3://data/set/"); err != nil {
		t.Fatal(err)
	}
	holds(t, "the large object is the task's alone", cache)
}

func TestOfManyInputsACacheTellsThoseThatWereUsedLast(t *testing.T) {
	store := newStore(t, map[string]string{"set/a": "A"})
	dir := t.TempDir()
	cache := newCache(t, dir, 5)
	var uris []string
	for i := range cluster.MaxCached + 3 {
		uri := fmt.Sprintf("s3://data/set/a.%d", i)
		put(t, store, fmt.Sprintf("set/a.%d", i), "")
		if _, err := fetch(t, store, cache, uri); err != nil {
			t.Fatal(err)
		}
		uris = append(uris, uri)
	}
	holds(t, "the last ones", cache, uris[3:]...)
	holds(t, "the last ones, opened again", newCache(t, dir, 5), uris[3:]...)
}
