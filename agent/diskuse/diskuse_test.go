package diskuse_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/clary-ml/clary/agent/diskuse"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
)

const mib = 1 << 20

// fill writes so many bytes that take room on the disk.
func fill(t *testing.T, size int, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, content, 0o600)); err != nil {
		t.Fatal(err)
	}
	return name
}

func count(t *testing.T, q diskuse.Question) diskuse.Use {
	t.Helper()
	use, err := diskuse.Of(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return use
}

// about allows for folders and what a file system adds.
func about(got, want int64) bool { return got >= want && got < want+want/10+64<<10 }

func TestWhatATaskWroteIsCountedOnce(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	large := fill(t, 2*mib, one, "a", "large")
	fill(t, mib, two, "b")
	if err := errors.Join(os.Link(large, filepath.Join(two, "again")), os.Symlink("/usr", filepath.Join(two, "link"))); err != nil {
		t.Fatal(err)
	}
	use := count(t, diskuse.Question{Folders: []string{one, two, filepath.Join(two, "gone")}})
	if !about(use.Bytes, 3*mib) || use.Files != 4 {
		t.Errorf("%+v", use)
	}
	if use := count(t, diskuse.Question{Folders: []string{one, two}, Except: filepath.Join(one, "a")}); !about(use.Bytes, 3*mib) || use.Files != 3 {
		t.Errorf("without a: %+v", use) // through its other name
	}
	if err := os.Remove(filepath.Join(two, "again")); err != nil {
		t.Fatal(err)
	}
	if use := count(t, diskuse.Question{Folders: []string{one, two}, Except: filepath.Join(one, "a")}); !about(use.Bytes, mib) {
		t.Errorf("without a: %+v", use)
	}
}

func TestEmptyFilesCountToo(t *testing.T) {
	folder := t.TempDir()
	for i := range 100 {
		fill(t, 0, folder, string(rune('a'+i)))
	}
	if use := count(t, diskuse.Question{Folders: []string{folder}}); use.Files != 100 || use.Bytes != 100*diskuse.PerFile {
		t.Errorf("%+v", use)
	}
}

func TestWhatOthersOwnIsNotTheTasks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: it takes root to give files away")
	}
	folder := t.TempDir()
	theirs := fill(t, mib, folder, "theirs")
	fill(t, 3*mib, folder, "input", "data")
	const uid = 234567
	if err := os.Lchown(theirs, uid, uid); err != nil {
		t.Fatal(err)
	}
	owner := uint32(uid)
	if use := count(t, diskuse.Question{Folders: []string{folder}, Owner: &owner}); !about(use.Bytes, mib) || use.Files != 1 {
		t.Errorf("%+v", use)
	}
}

func TestDeletedFilesThatAreOpenOrMappedCount(t *testing.T) {
	folder := t.TempDir()
	open, err := os.Open(fill(t, 2*mib, folder, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	mapped, err := os.Open(fill(t, mib, folder, "mapped"))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := syscall.Mmap(int(mapped.Fd()), 0, mib, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(memory) }()
	if err := errors.Join(mapped.Close(), os.Remove(filepath.Join(folder, "open")), os.Remove(filepath.Join(folder, "mapped"))); err != nil {
		t.Fatal(err)
	}
	if use := count(t, diskuse.Question{Folders: []string{folder}}); use.Bytes != 0 {
		t.Errorf("without its processes: %+v", use)
	}
	want := int64(3 * mib)
	if os.Geteuid() != 0 {
		want = 2 * mib // what another has mapped is for root to see
	}
	if use := count(t, diskuse.Question{Folders: []string{folder}, PIDs: []int{os.Getpid()}}); !about(use.Bytes, want) {
		t.Errorf("%+v", use)
	}
}

func TestACountEndsWhenItIsEnough(t *testing.T) {
	folder := t.TempDir()
	for i := range 20 {
		fill(t, mib, folder, string(rune('a'+i)))
	}
	if use := count(t, diskuse.Question{Folders: []string{folder}, Most: 3 * mib}); use.Bytes <= 3*mib || use.Bytes > 5*mib {
		t.Errorf("%+v", use)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := diskuse.Of(ctx, diskuse.Question{Folders: []string{folder}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWhatCannotBeCountedIsSaid(t *testing.T) {
	folder := t.TempDir()
	deep := folder
	for range tree.MaxDepth + 2 {
		deep = filepath.Join(deep, "d")
	}
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := diskuse.Of(t.Context(), diskuse.Question{Folders: []string{folder}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}
