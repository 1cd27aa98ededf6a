package fastfile_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/agent/feeder/fastfile"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/internal/fault"
)

// memory is a store of what it holds, which counts and can fail.
type memory struct {
	content  map[string][]byte
	requests atomic.Int64
	sent     atomic.Int64
	fail     atomic.Pointer[error]
	stall    chan struct{} // if not nil, requests wait for it, or for their end
	takes    time.Duration // each request
	now      atomic.Int64  // requests
	most     atomic.Int64  // requests at a time
}

func (m *memory) items() []staging.Item {
	var items []staging.Item
	for key, text := range m.content {
		items = append(items, staging.Item{Bucket: "data", Object: staging.Object{Key: key, ETag: fmt.Sprint(len(text), crc32.ChecksumIEEE(text)), Size: int64(len(text))}, Name: key})
	}
	return items
}

func (m *memory) OpenRange(ctx context.Context, _ string, o staging.Object, offset, length int64) (io.ReadCloser, error) {
	m.requests.Add(1)
	for now := m.now.Add(1); ; {
		if most := m.most.Load(); now <= most || m.most.CompareAndSwap(most, now) {
			break
		}
	}
	defer m.now.Add(-1)
	time.Sleep(m.takes) // as a network does
	if m.stall != nil {
		select {
		case <-m.stall:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := m.fail.Load(); err != nil {
		return nil, *err
	}
	m.sent.Add(length)
	return io.NopCloser(bytes.NewReader(m.content[o.Key][offset : offset+length])), nil
}

func (*memory) List(context.Context, string, string) ([]staging.Object, error) { panic("not asked") }

func (*memory) Stat(context.Context, string, string) (staging.Object, error) { panic("not asked") }

func (*memory) Open(context.Context, string, string) (io.ReadCloser, staging.Object, error) {
	panic("not asked")
}

func random(seed uint64, size int) []byte {
	text := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = source.Read(text)
	return text
}

func mount(t testing.TB, store *memory, keep int64) string {
	t.Helper()
	return mountOn(t, store, nil, keep)
}

func mountOn(t testing.TB, store *memory, disk *fastfile.Disk, keep int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("skipped: this machine has no /dev/fuse")
	}
	folder, err := os.MkdirTemp("", "clary-fastfile")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	blocks := fastfile.NewBlocks(store, disk, keep)
	mounted, err := fastfile.Mount(folder, store.items(), blocks, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mounted.Close(); err != nil {
			t.Error(err)
		}
		mounted.Wait()
		blocks.Close()
		if err := os.Remove(folder); err != nil {
			t.Error(err)
		}
	})
	return folder
}

func TestObjectsAreFilesThatAnyoneReadsAndNobodyWrites(t *testing.T) {
	store := &memory{content: map[string][]byte{
		"a": []byte("A"), "a-b": []byte("AB"), "deep/er/c": random(1, 3<<20+7), "deep/d": []byte("D"), "empty": nil, "0/ü ö": []byte("U"),
	}}
	folder := mount(t, store, 64<<20)
	if store.requests.Load() != 0 {
		t.Errorf("a mount alone asks %d times", store.requests.Load())
	}
	found := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, item fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(folder, path)
		if item.IsDir() {
			found[name+"/"] = ""
			return nil
		}
		info, err := item.Info()
		if err != nil || info.Mode() != 0o444 {
			t.Errorf("%s is %v, %v", name, info.Mode(), err)
		}
		text, err := os.ReadFile(path)
		found[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range store.content {
		if found[name] != string(text) {
			t.Errorf("%s holds %d bytes, not %d or others", name, len(found[name]), len(text))
		}
	}
	if len(found) != len(store.content)+4 { // ., deep, deep/er and 0
		t.Errorf("there are %d names", len(found))
	}
	for name, try := range map[string]func(string) error{
		"write":  func(p string) error { return os.WriteFile(p, nil, 0o644) },
		"make":   func(p string) error { return os.WriteFile(p+"x", nil, 0o644) },
		"remove": os.Remove, "chmod": func(p string) error { return os.Chmod(p, 0o777) },
	} {
		if err := try(filepath.Join(folder, "a")); err == nil {
			t.Errorf("%s is allowed", name)
		}
	}
	if _, err := os.Stat(filepath.Join(folder, "deep/er/none")); !os.IsNotExist(err) {
		t.Errorf("what does not exist: %v", err)
	}
	cat := exec.Command("cat", filepath.Join(folder, "deep/d"))
	cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if text, err := cat.Output(); err != nil || string(text) != "D" {
		t.Errorf("another user reads %q, %v", text, err)
	}
}

func TestAFolderOfManyIsListedWhole(t *testing.T) {
	store := &memory{content: map[string][]byte{}}
	for i := range 3000 {
		store.content[fmt.Sprintf("set/%d/%s-%d", i%7, strings.Repeat("long", 20), i)] = nil
		store.content[fmt.Sprintf("set/%d", i+10)] = nil
	}
	folder := mount(t, store, 1<<20)
	entries, err := os.ReadDir(filepath.Join(folder, "set"))
	if err != nil || len(entries) != 3007 {
		t.Errorf("set holds %d, %v", len(entries), err)
	}
	if !slices.IsSortedFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }) {
		t.Error("names are not in order")
	}
	sub, err := os.ReadDir(filepath.Join(folder, "set/6"))
	if err != nil || len(sub) != 428 {
		t.Errorf("set/6 holds %d, %v", len(sub), err)
	}
}

func TestReadingOnFetchesAheadInFewRequestsAndReadingAroundDoesNot(t *testing.T) {
	const size = 48 << 20
	store := &memory{content: map[string][]byte{"big": random(2, size)}}
	file, err := os.Open(filepath.Join(mount(t, store, 32<<20), "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // only read
	if got, err := io.ReadAll(file); err != nil || !bytes.Equal(got, store.content["big"]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if n, sent := store.requests.Load(), store.sent.Load(); n > 16 || sent > size*11/10 {
		t.Errorf("it took %d requests and %d bytes for %d", n, sent, size)
	}
	other := &memory{content: map[string][]byte{"big": store.content["big"]}}
	around, err := os.Open(filepath.Join(mount(t, other, 32<<20), "big"))
	if err != nil {
		t.Fatal(err)
	}
	defer around.Close() //nolint:errcheck // only read
	to := make([]byte, 100)
	for i := range 10 {
		at := int64(i*7%10*4<<20 + 12345)
		if _, err := around.ReadAt(to, at); err != nil || !bytes.Equal(to, store.content["big"][at:at+100]) {
			t.Fatalf("at %d: %v", at, err)
		}
	}
	if sent := other.sent.Load(); sent > 30<<20 {
		t.Errorf("ten reads around fetch %d bytes", sent)
	}
}

func TestManyReadersGetWhatTheStoreHolds(t *testing.T) {
	store := &memory{content: map[string][]byte{}}
	for i := range 8 {
		store.content[fmt.Sprintf("f%d", i)] = random(uint64(i), 5<<20+i*1000)
	}
	folder := mount(t, store, 1) // as little as is possible
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			name := fmt.Sprintf("f%d", i)
			if got, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !bytes.Equal(got, store.content[name]) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		})
	}
	group.Wait()
}

func TestAFailedReadIsAnErrorAndTheNextOneTriesAgain(t *testing.T) {
	store := &memory{content: map[string][]byte{"a": random(3, 1000)}}
	path := filepath.Join(mount(t, store, 1<<20), "a")
	gone := fault.New(fault.Conflict, "it was overwritten")
	store.fail.Store(&gone)
	if _, err := os.ReadFile(path); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("while the store refuses: %v", err)
	}
	store.fail.Store(nil)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, store.content["a"]) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestThousandsOfReadsAtOnceAreFetchedAFewAtATime(t *testing.T) {
	const size, readers = 600 << 20, 500
	store := &memory{content: map[string][]byte{"a": make([]byte, size)}, takes: 10 * time.Millisecond}
	path := filepath.Join(mount(t, store, 1), "a")
	if _, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECT, 0); err == nil {
		t.Error("reads may pass by the kernel's cache")
	}
	var group sync.WaitGroup
	for i := range readers {
		group.Go(func() {
			file, err := os.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer file.Close() //nolint:errcheck // only read
			if _, err := file.ReadAt(make([]byte, 10), int64(i)*(size/readers)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n, most := store.requests.Load(), store.most.Load(); n < readers*9/10 || most > 8 || most < 2 {
		t.Errorf("%d requests, %d at a time", n, most)
	}
}

func TestAReaderThatIsKilledDoesNotWaitForTheStore(t *testing.T) {
	store := &memory{content: map[string][]byte{"a": random(3, 1000)}, stall: make(chan struct{})}
	cat := exec.Command("cat", filepath.Join(mount(t, store, 1<<20), "a"))
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	for store.requests.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := cat.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cat.Wait() }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("it waits")
	}
	close(store.stall)
}

func TestAnyFoldersAreShownAsTheyAre(t *testing.T) {
	if testing.Short() {
		t.Skip("mounts many times")
	}
	nested := 0
	rapid.Check(t, func(r *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`([ab\-.0][/]?){1,6}c`), 1, 12, rapid.ID[string]).Draw(r, "names")
		want := map[string]bool{}
		store := &memory{content: map[string][]byte{}}
		for _, name := range names {
			if filepath.Clean(name) != name || strings.HasPrefix(name, "/") || strings.HasPrefix(name, "..") || slices.ContainsFunc(names, func(other string) bool {
				return strings.HasPrefix(other, name+"/") || strings.HasPrefix(name, other+"/")
			}) {
				continue
			}
			want[name] = true
			store.content[name] = []byte(name)
			if strings.Count(name, "/") > 1 {
				nested++
			}
		}
		folder := mount(t, store, 1<<20)
		got := 0
		err := filepath.WalkDir(folder, func(path string, item fs.DirEntry, err error) error {
			if err != nil || item.IsDir() {
				return err
			}
			name, _ := filepath.Rel(folder, path)
			text, err := os.ReadFile(path)
			if !want[name] || string(text) != name {
				r.Fatalf("%q holds %q", name, text)
			}
			got++
			return err
		})
		if err != nil || got != len(want) {
			r.Fatalf("%d of %d are there, %v", got, len(want), err)
		}
	})
	if nested == 0 {
		t.Error("nothing was nested")
	}
}
