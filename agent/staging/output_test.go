package staging_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

func write(t testing.TB, text string, path ...string) {
	t.Helper()
	file := filepath.Join(path...)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func pack(t testing.TB, folder string) []byte {
	t.Helper()
	var packed bytes.Buffer
	if err := staging.Pack(t.Context(), folder, &packed, nil); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

func TestTheSameModelPacksToTheSameBytes(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	write(t, "weights", one, "w.bin")
	write(t, "{}", one, "deep", "manifest.json")
	write(t, "{}", two, "deep", "manifest.json")
	write(t, "weights", two, "w.bin")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(two, "w.bin"), old, old); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pack(t, one), pack(t, two)) {
		t.Error("times or order show in the archive")
	}
	write(t, "Weights", two, "w.bin")
	if bytes.Equal(pack(t, one), pack(t, two)) {
		t.Error("another content makes the same archive")
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(pack(t, one)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	if !slices.Equal(names, []string{"deep/", "deep/manifest.json", "w.bin"}) {
		t.Errorf("the archive holds %v", names)
	}
}

func TestLinksOutOfTheModelAndOddFilesAreRefused(t *testing.T) {
	for _, target := range []string{"/etc/passwd", "../x", "a/../../x"} {
		dir := t.TempDir()
		if err := os.Symlink(target, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := staging.Pack(t.Context(), dir, io.Discard, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("link to %s: %v", target, err)
		}
	}
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := staging.Pack(t.Context(), dir, io.Discard, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("fifo: %v", err)
	}
}

func TestAnUploadSaysWhatItIs(t *testing.T) {
	store, dir := newStore(t, nil), t.TempDir()
	if _, some, err := staging.Upload(t.Context(), store, "model", staging.Folder{Base: dir}, "s3://data/m.tar.gz", t.TempDir()); some || err != nil {
		t.Errorf("an empty folder is an output: %v, %v", some, err)
	}
	write(t, "weights", dir, "w.bin")
	scratch := t.TempDir()
	output, some, err := staging.Upload(t.Context(), store, "model", staging.Folder{Base: dir}, "s3://data/m.tar.gz", scratch)
	if err != nil || !some {
		t.Fatal(some, err)
	}
	stored := read(t, store.Dir, "data", "m.tar.gz")
	sum := sha256.Sum256([]byte(stored))
	if output != (cluster.Output{Name: "model", URI: "s3://data/m.tar.gz", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(stored))}) {
		t.Errorf("output %+v", output)
	}
	if left, _ := os.ReadDir(scratch); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func keys(t testing.TB, store staging.Store, prefix string) []string {
	t.Helper()
	objects, err := store.List(t.Context(), "data", prefix)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, o := range objects {
		all = append(all, o.Key)
	}
	return all
}

func TestTheMirrorFollowsTheFolderAndSkipsUnfinishedFiles(t *testing.T) {
	store, dir := newStore(t, nil), t.TempDir()
	task := cluster.Task{Role: "worker", Index: 0, Attempt: 2}
	open := func() *staging.Mirror {
		m, err := staging.NewMirror(store, "s3://data/ckpt", task, staging.Folder{Base: dir})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	mirror := open()
	steps := []struct {
		do   func()
		want []string
	}{
		{func() { write(t, "1", dir, "c1"); write(t, "x", dir, ".c2"); write(t, "x", dir, "c2.tmp") }, []string{"c1"}},
		{func() { write(t, "2", dir, "c2") }, []string{"c1", "c2"}},
		{func() { _ = os.Remove(filepath.Join(dir, "c1")); write(t, "3", dir, "deep", "c3") }, []string{"c2", "deep/c3"}},
		{func() { mirror = open(); _ = os.Remove(filepath.Join(dir, "c2")) }, []string{"deep/c3"}}, // another agent prunes too
		{func() { write(t, "3 again", dir, "deep", "c3") }, []string{"deep/c3"}},
	}
	for i, step := range steps {
		step.do()
		for range 2 { // the second look sees that it has settled
			if err := mirror.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var want []string
		for _, name := range step.want {
			want = append(want, "ckpt/2/worker-0/"+name)
		}
		if got := keys(t, store, "ckpt/"); !slices.Equal(got, want) {
			t.Errorf("step %d: the store holds %v, want %v", i, got, want)
		}
	}
	if text := read(t, store.Dir, "data", "ckpt/2/worker-0/deep/c3"); text != "3 again" {
		t.Errorf("a rewritten checkpoint is %q", text)
	}
}

func TestACheckpointThatIsStillWrittenIsNotSentAndTheOldOneStays(t *testing.T) {
	store, dir := newStore(t, nil), t.TempDir()
	mirror, err := staging.NewMirror(store, "s3://data/ckpt", cluster.Task{Role: "worker", Attempt: 1}, staging.Folder{Base: dir})
	if err != nil {
		t.Fatal(err)
	}
	look := func() []string {
		if err := mirror.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		return keys(t, store, "ckpt/")
	}
	write(t, "old", dir, "c1")
	look()
	if got := look(); len(got) != 1 {
		t.Fatalf("the store holds %v", got)
	}
	_ = os.Remove(filepath.Join(dir, "c1"))
	growing, err := os.Create(filepath.Join(dir, "c2")) // under its own name
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := growing.WriteString("n"); err != nil {
			t.Fatal(err)
		}
		if got := look(); len(got) != 1 || got[0] != "ckpt/1/worker-0/c1" {
			t.Fatalf("while c2 is written the store holds %v", got)
		}
	}
	if err := growing.Close(); err != nil {
		t.Fatal(err)
	}
	if got := look(); len(got) != 1 || got[0] != "ckpt/1/worker-0/c2" || read(t, store.Dir, "data", got[0]) != "nnnn" {
		t.Errorf("at last the store holds %v", got)
	}
	write(t, "last", dir, "c3")
	if err := mirror.Finish(t.Context()); err != nil || len(keys(t, store, "ckpt/")) != 2 {
		t.Errorf("the end leaves %v, %v", keys(t, store, "ckpt/"), err)
	}
}

func TestACheckpointThatIsReplacedAllTheTimeIsSentAllTheSame(t *testing.T) {
	store, dir := newStore(t, nil), t.TempDir()
	mirror, err := staging.NewMirror(store, "s3://data/ckpt", cluster.Task{Role: "worker", Attempt: 1}, staging.Folder{Base: dir})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		text := strings.Repeat("r", round+1)
		write(t, text, dir, "last.tmp")
		if err := os.Rename(filepath.Join(dir, "last.tmp"), filepath.Join(dir, "last")); err != nil {
			t.Fatal(err)
		}
		if err := mirror.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := read(t, store.Dir, "data", "ckpt/1/worker-0/last"); got != text {
			t.Errorf("round %d: the store holds %q", round, got)
		}
	}
}

// changing is a store during whose writes the file is written too.
type changing struct {
	staging.Store
	path string
}

func (c changing) Put(ctx context.Context, bucket, key string, from io.Reader, size int64) error {
	first := make([]byte, 1)
	if _, err := io.ReadFull(from, first); err != nil {
		return err
	}
	if err := os.WriteFile(c.path, []byte("MIXTURE"), 0o600); err != nil {
		return err
	}
	return c.Store.Put(ctx, bucket, key, io.MultiReader(bytes.NewReader(first), from), size)
}

func TestAFileThatChangesWhileItIsSentIsNotKept(t *testing.T) {
	store, dir := newStore(t, map[string]string{"ckpt/1/worker-0/c": "before"}), t.TempDir()
	write(t, "ORDERLY", dir, "c")
	mirror, err := staging.NewMirror(changing{store, filepath.Join(dir, "c")}, "s3://data/ckpt", cluster.Task{Role: "worker", Attempt: 1}, staging.Folder{Base: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := mirror.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, store.Dir, "data", "ckpt/1/worker-0/c"); got != "before" {
		t.Errorf("the store holds %q", got)
	}
}

func TestTheNewestEarlierAttemptIsRestored(t *testing.T) {
	store := newStore(t, map[string]string{
		"ckpt/1/worker-0/c": "one", "ckpt/2/worker-0/c": "two", "ckpt/2/worker-0/deep/d": "two", "ckpt/9/worker-0/c": "nine",
		"ckpt/10/worker-0/c": "ten", "ckpt/3/worker-1/c": "other", "ckpt/3/worker-01/c": "other", "ckpt/rubbish/c": "x",
	})
	for attempt, want := range map[int32]struct {
		from int32
		text string
	}{3: {2, "two"}, 4: {2, "two"}, 10: {9, "nine"}, 11: {10, "ten"}, 1: {0, ""}} {
		dir := t.TempDir()
		from, err := staging.Restore(t.Context(), store, "s3://data/ckpt/", cluster.Task{Role: "worker", Attempt: attempt}, false, dir)
		if err != nil || from != want.from {
			t.Errorf("attempt %d restores %d, %v", attempt, from, err)
		}
		if want.text != "" && read(t, dir, "c") != want.text {
			t.Errorf("attempt %d restores %q", attempt, read(t, dir, "c"))
		}
	}
}
