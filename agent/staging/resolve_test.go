package staging_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

func TestEachObjectBelongsToExactlyOneTaskAndNoneHasTwoMoreThanAnother(t *testing.T) {
	spread, short := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		objects := rapid.IntRange(1, 40).Draw(t, "objects")
		tasks := rapid.IntRange(1, 12).Draw(t, "tasks")
		var keys []staging.Object
		for i := range objects {
			keys = append(keys, staging.Object{Key: fmt.Sprintf("set/%03d", i)})
		}
		store := fixed{objects: keys}
		owner := map[string]int{}
		least, most := objects, 0
		for index := range tasks {
			items, err := staging.Resolve(context.Background(), store, cluster.Input{URI: "s3://data/set", Sharded: true}, staging.Share{Index: index, Count: tasks})
			if err != nil {
				t.Fatal(err)
			}
			for _, item := range items {
				if _, taken := owner[item.Key]; taken {
					t.Fatalf("%s has two owners", item.Key)
				}
				owner[item.Key] = index
			}
			least, most = min(least, len(items)), max(most, len(items))
		}
		if len(owner) != objects || most-least > 1 {
			t.Fatalf("%d of %d objects are given away; a task has %d to %d", len(owner), objects, least, most)
		}
		if tasks > 1 && objects > tasks {
			spread++
		}
		if objects < tasks {
			short++
		}
	})
	if spread == 0 || short == 0 {
		t.Errorf("exercised %d spreads, and %d with fewer objects than tasks", spread, short)
	}
}

// fixed is a store that lists what it is told.
type fixed struct {
	stagingtest.Store
	objects []staging.Object
}

func (f fixed) List(context.Context, string, string) ([]staging.Object, error) { return f.objects, nil }

func resolve(t testing.TB, store staging.Reader, input cluster.Input) ([]string, error) {
	t.Helper()
	items, err := staging.Resolve(t.Context(), store, input, staging.Share{})
	var names []string
	for _, item := range items {
		names = append(names, item.Name+"="+item.Bucket+"/"+item.Key)
	}
	return names, err
}

func TestAManifestNamesObjectsBehindAPrefix(t *testing.T) {
	store := newStore(t, map[string]string{
		"m.json": `[{"prefix": "s3://data/set/"}, "b", "deep/a.csv"]`, "set/b": "B", "set/deep/a.csv": "A", "set/c": "C",
		"whole.json": `[{"prefix": "s3://data/se"}, "t/b"]`, "gone.json": `[{"prefix": "s3://data/set/"}, "none"]`,
	})
	input := cluster.Input{Channel: "train", URI: "s3://data/m.json", Type: cluster.InputManifest}
	if names, err := resolve(t, store, input); err != nil || !slices.Equal(names, []string{"b=data/set/b", "deep/a.csv=data/set/deep/a.csv"}) {
		t.Errorf("%v, %v", names, err)
	}
	input.URI = "s3://data/whole.json"
	if names, err := resolve(t, store, input); err != nil || !slices.Equal(names, []string{"t/b=data/set/b"}) {
		t.Errorf("%v, %v", names, err)
	}
	input.URI = "s3://data/gone.json"
	if _, err := resolve(t, store, input); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "s3://data/set/none") {
		t.Errorf("an object that is not there: %v", err)
	}
}

func TestRubbishIsNoManifest(t *testing.T) {
	for claim, text := range map[string]string{
		"nothing": "", "no list": `{"prefix": "s3://data/"}`, "no JSON": `[{"prefix": "s3://data/"}, x]`, "no prefix": `["a"]`,
		"an empty list": `[]`, "an empty prefix": `[{"prefix": ""}, "a"]`, "another field": `[{"prefix": "s3://data/", "x": 1}, "a"]`,
		"no address": `[{"prefix": "http://data/"}, "a"]`, "a number": `[{"prefix": "s3://data/"}, 1]`, "only a prefix": `[{"prefix": "s3://data/"}]`,
		"a way out": `[{"prefix": "s3://data/set/"}, "../m"]`, "an absolute name": `[{"prefix": "s3://data/set/"}, "/m"]`,
		"an empty name": `[{"prefix": "s3://data/m"}, ""]`, "no end": `[{"prefix": "s3://data/"}, "m"`, "more": `[{"prefix": "s3://data/"}, "m"] []`,
		"one twice": `[{"prefix": "s3://data/"}, "m", "m"]`, "a file that is a folder": `[{"prefix": "s3://data/"}, "m", "m/x"]`,
	} {
		store := newStore(t, map[string]string{"m": text})
		_, err := resolve(t, described{store}, cluster.Input{Channel: "train", URI: "s3://data/m", Type: cluster.InputManifest})
		if (claim == "only a prefix") != fault.Is(err, fault.NotFound) || claim != "only a prefix" && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", claim, err)
		}
	}
}

// described has every object.
type described struct{ counted }

func (described) Stat(_ context.Context, _, key string) (staging.Object, error) {
	return staging.Object{Key: key}, nil
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`[{"prefix": "s3://data/set/"}, "a", "b/c"]`))
	f.Add([]byte(`[{"prefix": "s3://data/"}, "../x", "\u0000"]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		store := described{newStore(t, map[string]string{"m": string(text)})}
		items, err := staging.Resolve(t.Context(), store, cluster.Input{URI: "s3://data/m", Type: cluster.InputManifest}, staging.Share{})
		if err != nil && !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.NotFound) {
			t.Errorf("it is refused as %v: %v", fault.KindOf(err), err)
		}
		for _, item := range items {
			if !filepath.IsLocal(filepath.FromSlash(item.Name)) || item.Bucket == "" || strings.ContainsRune(item.Name, 0) {
				t.Errorf("it makes %+v", item)
			}
		}
	})
}

func attributes(t testing.TB, store staging.Reader, input cluster.Input, share staging.Share) ([]string, error) {
	t.Helper()
	var got []string
	err := staging.Lines(t.Context(), store, input, share, func(values []staging.Value) error {
		for _, value := range values {
			if value.Bucket != "" {
				got = append(got, "@"+value.Bucket+"/"+value.Object.Key)
				continue
			}
			got = append(got, string(value.Inline))
		}
		return nil
	})
	return got, err
}

func TestAnAugmentedManifestGivesItsAttributesLineByLine(t *testing.T) {
	store := newStore(t, map[string]string{
		"a.json": `{"source-ref": "s3://data/1.jpg", "class": 3, "boxes": {"b": [1, 2]}, "name": "one\n"}` + "\n\n" +
			`{"name": "two", "boxes": null, "class": "x", "source-ref": "s3://other/2.jpg"}`,
	})
	input := cluster.Input{URI: "s3://data/a.json", Type: cluster.InputAugmentedManifest, Mode: cluster.InputPipe, Attributes: []string{"source-ref", "boxes", "name"}}
	got, err := attributes(t, store, input, staging.Share{})
	if want := []string{"@data/1.jpg", `{"b": [1, 2]}`, "one\n", "@other/2.jpg", "null", "two"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	input.Sharded = true
	for index, want := range []string{"@data/1.jpg", "@other/2.jpg"} {
		if got, err := attributes(t, store, input, staging.Share{Index: index, Count: 2}); err != nil || len(got) != 3 || got[0] != want {
			t.Errorf("share %d is %q, %v", index, got, err)
		}
	}
	if got, err := attributes(t, store, input, staging.Share{Index: 2, Count: 3}); err != nil || len(got) != 0 {
		t.Errorf("the third of two is %q, %v", got, err)
	}
	for claim, text := range map[string]string{
		"nothing": "", "no object": "[]", "no JSON": "{", "an attribute is missing": `{"a-ref": "s3://data/x"}`,
		"no address": `{"source-ref": 1, "boxes": 1, "name": 1}`, "a bucket": `{"source-ref": "s3://data", "boxes": 1, "name": 1}`,
		"a long line": `{"source-ref": "s3://data/x", "boxes": 1, "name": "` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		input.Sharded = false
		store := newStore(t, map[string]string{"a.json": text})
		if _, err := attributes(t, store, input, staging.Share{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", claim, err)
		}
	}
}

func FuzzAugmentedManifest(f *testing.F) {
	f.Add([]byte(`{"a": 1, "b-ref": "s3://data/x"}`))
	f.Add([]byte("{\"a\": \"\\ud800\", \"b-ref\": \"s3://\"}\n[]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		store := newStore(t, map[string]string{"m": string(text)})
		input := cluster.Input{URI: "s3://data/m", Type: cluster.InputAugmentedManifest, Attributes: []string{"a", "b-ref"}}
		got, err := attributes(t, store, input, staging.Share{})
		if err != nil && !fault.Is(err, fault.Invalid) || err == nil && len(got)%2 != 0 {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func zipped(t testing.TB, texts ...string) string {
	t.Helper()
	var out bytes.Buffer
	for _, text := range texts {
		to := gzip.NewWriter(&out)
		if _, err := io.WriteString(to, text); err != nil || to.Close() != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func TestGzipIsDecompressedOnceForANode(t *testing.T) {
	store := newStore(t, map[string]string{"set/a.csv.gz": zipped(t, "one,", "two"), "set/deep/b": zipped(t, ""), "set/.gz": zipped(t, "dot")})
	cache := newCache(t, t.TempDir(), 1<<20)
	for range 2 {
		folder := t.TempDir()
		input := cluster.Input{Channel: "train", URI: "s3://data/set", Gzip: true}
		if _, err := staging.Fetch(t.Context(), store, cache, input, staging.Share{}, folder); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"a.csv": "one,two", "deep/b": "", ".gz": "dot"} {
			if got := read(t, folder, name); got != want {
				t.Errorf("%s holds %q", name, got)
			}
		}
	}
	if n := store.opens.Load(); n != 3 {
		t.Errorf("three objects were fetched %d times", n)
	}
	if folder, err := fetch(t, store, cache, "s3://data/set/a.csv.gz"); err != nil || read(t, folder, "a.csv.gz") != zipped(t, "one,", "two") {
		t.Errorf("as it is in the store: %v", err)
	}
}

func TestWhatIsNoGzipIsRefusedAndTheObjectIsNamed(t *testing.T) {
	whole := zipped(t, strings.Repeat("abcdefgh", 1000))
	damaged := []byte(whole)
	damaged[len(damaged)-6] ^= 1
	for claim, text := range map[string]string{
		"plain text": "a,b\n1,2\n", "nothing": "", "a half": whole[:len(whole)/2], "damage": string(damaged), "a tail": whole + "rubbish",
	} {
		store, folder := newStore(t, map[string]string{"set/x.gz": text}), t.TempDir()
		cache := newCache(t, t.TempDir(), 1<<20)
		_, err := staging.Fetch(t.Context(), store, cache, cluster.Input{Channel: "train", URI: "s3://data/set", Gzip: true}, staging.Share{}, folder)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "s3://data/set/x.gz") {
			t.Errorf("%s: %v", claim, err)
		}
		if left, _ := os.ReadDir(folder); len(left) != 0 || cache.Stats().Files != 0 {
			t.Errorf("%s leaves %v", claim, left)
		}
	}
	store := newStore(t, map[string]string{"set/x.gz": whole})
	store.cut.Store(true)
	_, err := staging.Fetch(t.Context(), store, newCache(t, t.TempDir(), 1<<20), cluster.Input{URI: "s3://data/set", Gzip: true}, staging.Share{}, t.TempDir())
	if !fault.Is(err, fault.Unready) {
		t.Errorf("a connection that is cut is no damage: %v", err)
	}
}

func TestABombIsNotUnpacked(t *testing.T) {
	bomb := zipped(t, string(make([]byte, 100<<20)))
	n, err := io.Copy(io.Discard, staging.Gunzip(strings.NewReader(bomb), int64(len(bomb))))
	if !fault.Is(err, fault.Invalid) || n > int64(len(bomb))*250+64<<20 {
		t.Errorf("%d bytes came of %d, %v", n, len(bomb), err)
	}
}

// flaky is a store whose connections carry a few bytes each, and sometimes fail to open.
type flaky struct {
	stagingtest.Store
	carry int64
	fails map[int]error // by number of the attempt
	tries *int
}

func (f flaky) OpenRange(ctx context.Context, bucket string, object staging.Object, offset, length int64) (io.ReadCloser, error) {
	*f.tries++
	if err := f.fails[*f.tries]; err != nil {
		return nil, err
	}
	body, err := f.Store.OpenRange(ctx, bucket, object, offset, length)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(body, f.carry), broken{})), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("reset by peer") }

func TestAReadGoesOnWhereTheConnectionWasCut(t *testing.T) {
	store := newStore(t, map[string]string{"a": "0123456789"})
	object, err := store.Stat(t.Context(), "data", "a")
	if err != nil {
		t.Fatal(err)
	}
	unready := fault.New(fault.Unready, "no route")
	for claim, c := range map[string]struct {
		fails map[int]error
		want  string
		kind  fault.Kind
	}{
		"cut again and again":      {nil, "0123456789", 0},
		"and away for a while":     {map[int]error{2: unready, 3: unready, 4: unready}, "0123456789", 0},
		"overwritten in between":   {map[int]error{3: fault.New(fault.Conflict, "another ETag")}, "012345", fault.Conflict},
		"away for longer than 30s": {maps.Collect(forever(unready)), "012", fault.Unready},
	} {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			body := staging.OpenWhole(t.Context(), flaky{store.Store, 3, c.fails, &tries}, "data", object)
			start := time.Now()
			text, err := io.ReadAll(body)
			if string(text) != c.want || (err != nil) != (c.want != "0123456789") || err != nil && !fault.Is(err, c.kind) {
				t.Errorf("%s: %q, %v", claim, text, err)
			}
			if time.Since(start) > time.Minute || body.Close() != nil {
				t.Errorf("%s: it took %s", claim, time.Since(start))
			}
		})
	}
}

func forever(err error) func(yield func(int, error) bool) {
	return func(yield func(int, error) bool) {
		for i := 2; i < 1000 && yield(i, err); i++ {
		}
	}
}
