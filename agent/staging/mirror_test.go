package staging_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

func TestAMirrorTakesAsManyFilesAsItIsToldTo(t *testing.T) {
	dir, store := t.TempDir(), stagingtest.Store{Dir: t.TempDir()}
	mirror := staging.Mirror{Store: store, Folder: staging.Folder{Base: dir}, Bucket: "data", Prefix: "live/", Keep: true, Max: 3}
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"a", "b"} { // is none
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := mirror.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sent, err := store.List(t.Context(), "data", "live/"); err != nil || len(sent) != 3 {
		t.Errorf("it has %v, %v", sent, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "3"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := mirror.Finish(t.Context()); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "more than 3 files: put them into fewer") {
		t.Errorf("one more: %v", err)
	}
}

func TestAMirrorKnowsSinceWhenACheckpointIsWhole(t *testing.T) {
	dir, store := t.TempDir(), stagingtest.Store{Dir: t.TempDir()}
	mirror := staging.Mirror{Store: store, Folder: staging.Folder{Base: dir}, Bucket: "data", Prefix: "checkpoints/"}
	write := func(name string, at int64) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name+strconv.FormatInt(at, 10)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Unix(at, 0), time.Unix(at, 0)); err != nil {
			t.Fatal(err)
		}
	}
	whole := func(want int64) {
		t.Helper()
		if err := mirror.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := mirror.Whole(); want == 0 && !got.IsZero() || want != 0 && got.Unix() != want {
			t.Errorf("whole since %s; want %d", got, want)
		}
	}
	whole(0)
	write("weights", 100)
	write("state", 101)
	whole(101)
	writing, err := os.OpenFile(filepath.Join(dir, "weights"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writing.Close() //nolint:errcheck // it is read by nobody
	if _, err := writing.WriteString("half"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "weights"), time.Unix(200, 0), time.Unix(200, 0)); err != nil {
		t.Fatal(err)
	}
	write("state", 201) // is in the store at once, and of no use without the other
	whole(100)
	if err := writing.Close(); err != nil {
		t.Fatal(err)
	}
	whole(201)
}

func TestTasksOfAnElasticRoleGoOnFromOneAttempt(t *testing.T) {
	store := stagingtest.Store{Dir: t.TempDir()}
	for key, text := range map[string]string{
		"1/worker-0/w": "1 of 0", "1/worker-1/w": "1 of 1", "1/worker-2/w": "1 of 2", // three
		"2/worker-0/w": "2 of 0", "2/worker-1/w": "2 of 1", "2/worker-1/part": "of 1", // two
		"3/worker-1/w": "3 of 1", // and an attempt that ended before its first was in the store
	} {
		if err := store.Put(t.Context(), "data", "ckpt/"+key, strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		index, attempt int32
		elastic        bool
		want           string
	}{
		{0, 4, true, "2 of 0"}, // and not the others'
		{1, 4, true, "2 of 1"},
		{2, 4, true, "2 of 0"}, // it was not there
		{3, 4, true, "2 of 0"}, // it never was
		{2, 2, true, "1 of 2"},
		{1, 4, false, "3 of 1"},
		{2, 4, false, "1 of 2"},
		{3, 4, false, ""},
	} {
		dir := t.TempDir()
		_, err := staging.Restore(t.Context(), store, "s3://data/ckpt", cluster.Task{Role: "worker", Index: c.index, Attempt: c.attempt}, c.elastic, dir)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(filepath.Join(dir, "w")) // nothing if there is none
		if string(got) != c.want {
			t.Errorf("worker-%d of attempt %d (elastic %v) has %q; want %q", c.index, c.attempt, c.elastic, got, c.want)
		}
		if part, _ := os.ReadFile(filepath.Join(dir, "part")); c.attempt == 4 && (string(part) == "of 1") != c.elastic {
			t.Errorf("worker-%d (elastic %v) has %q of what only another wrote", c.index, c.elastic, part)
		}
	}
}

func TestAMirrorLeavesOutWhatWasThereBefore(t *testing.T) {
	dir, store := t.TempDir(), stagingtest.Store{Dir: t.TempDir()}
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("restored")
	write("replaced")
	info, err := os.Stat(filepath.Join(dir, "replaced"))
	if err != nil {
		t.Fatal(err)
	}
	mirror := staging.Mirror{Store: store, Folder: staging.Folder{Base: dir}, Bucket: "data", Prefix: "ckpt/", Since: info.ModTime().Add(time.Millisecond)}
	time.Sleep(20 * time.Millisecond) // so that the clock of the file system has gone on
	write("replaced")
	write("moved")
	old := time.Unix(1, 0)
	if err := os.Chtimes(filepath.Join(dir, "moved"), old, old); err != nil { // as cp -p does
		t.Fatal(err)
	}
	if err := mirror.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent, err := store.List(t.Context(), "data", "ckpt/")
	if err != nil || len(sent) != 2 || sent[0].Key != "ckpt/moved" || sent[1].Key != "ckpt/replaced" {
		t.Errorf("it sent %v, %v", sent, err)
	}
}
