package agent

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/cluster"
)

func TestWhatTheCacheHoldsIsToldWhenItHasChangedAndNotOften(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := stagingtest.Store{Dir: filepath.Join(dir, "store")}
		cache, err := staging.OpenCache(filepath.Join(dir, "cache"), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		fetch := func(key string) (digest uint32) {
			if err := store.Put(t.Context(), "data", key, strings.NewReader(key), int64(len(key))); err != nil {
				t.Fatal(err)
			}
			input := cluster.Input{Channel: "train", URI: "s3://data/" + key}
			if _, err := staging.Fetch(t.Context(), store, cache, input, staging.Share{}, filepath.Join(dir, "tasks", key)); err != nil {
				t.Fatal(err)
			}
			return cluster.InputDigest(input.URI)
		}
		want := []uint32{fetch("a")}
		var known told
		if all := known.all(cache); !slices.Equal(all, want) {
			t.Errorf("the hello tells %x, want %x", all, want)
		}
		if change := known.change(cache); change != nil {
			t.Errorf("nothing has changed, and it tells %v", change)
		}
		for _, key := range []string{"b", "c"} {
			want = append(want, fetch(key))
			slices.Sort(want)
			if change := known.change(cache); !slices.Equal(change.GetDigests(), want) {
				t.Errorf("with %s it tells %v, want %x", key, change, want)
			}
			fetch(key + key)
			want = append(want, cluster.InputDigest("s3://data/"+key+key))
			for range cachedEvery/time.Second - 1 {
				time.Sleep(time.Second)
				if change := known.change(cache); change != nil {
					t.Fatalf("so soon it tells %v", change)
				}
			}
			time.Sleep(time.Second)
		}
	})
}
