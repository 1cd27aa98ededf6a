package tree_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
)

// nest makes folders in one another, as deep as asked, with a file in the last, and leaves a
// path to the first.
func nest(t *testing.T, depth int) string {
	t.Helper()
	folder := t.TempDir()
	at, err := os.OpenRoot(folder)
	for range depth {
		if err != nil {
			t.Fatal(err)
		}
		err = at.Mkdir("d", 0o755)
		below, deeper := at.OpenRoot("d")
		_ = at.Close()
		at, err = below, errors.Join(err, deeper)
	}
	if err = errors.Join(err, at.WriteFile("f", []byte("x"), 0o600), at.Close()); err != nil {
		t.Fatal(err)
	}
	return folder
}

func open(t *testing.T, folder string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestATreeOfAnyDepthIsRemovedWithFewDescriptors(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = 4 * tree.MaxDepth
	folder := nest(t, 10*tree.MaxDepth+7)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.WriteFile(outside, nil, 0o600), os.Symlink(filepath.Dir(outside), filepath.Join(folder, "link"))); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err := tree.RemoveAll(folder)
	if back := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); back != nil {
		t.Fatal(back)
	}
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("what a link leads to is gone: %v", err)
	}
	if err := tree.RemoveAll(filepath.Join(folder, "gone", "long", "ago")); err != nil {
		t.Errorf("what is not there: %v", err)
	}
}

func TestWhatWasMadeUnreadableIsRemoved(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "x")
	if err := errors.Join(os.MkdirAll(filepath.Join(folder, "a/b"), 0o755), os.WriteFile(filepath.Join(folder, "a/b/c"), nil, 0o000),
		os.Chmod(filepath.Join(folder, "a/b"), 0), os.Chmod(filepath.Join(folder, "a"), 0)); err != nil {
		t.Fatal(err)
	}
	if err := tree.RemoveAll(folder); err != nil {
		t.Error(err)
	}
}

func TestAWalkSeesAllThatIsBelow(t *testing.T) {
	folder := t.TempDir()
	want := []string{"a", "a/one", "b", "b.txt", "b/sub", "b/sub/two", "link"}
	if err := errors.Join(os.MkdirAll(filepath.Join(folder, "b/sub"), 0o755), os.Mkdir(filepath.Join(folder, "a"), 0o755),
		os.WriteFile(filepath.Join(folder, "a/one"), nil, 0o600), os.WriteFile(filepath.Join(folder, "b/sub/two"), nil, 0o600),
		os.WriteFile(filepath.Join(folder, "b.txt"), nil, 0o600), os.Symlink("/etc", filepath.Join(folder, "link"))); err != nil {
		t.Fatal(err)
	}
	for name, walk := range map[string]func(context.Context, *os.Root, tree.Visit) error{"in order": tree.Sorted, "in any": tree.Walk} {
		var seen []string
		if err := walk(t.Context(), open(t, folder), func(name string, _ fs.FileInfo) error { seen = append(seen, name); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.IsSorted(seen) && name == "in order" {
			// Folder by folder: what is in b comes before b.txt is named.
			order := []string{"a", "a/one", "b", "b/sub", "b/sub/two", "b.txt", "link"}
			if !slices.Equal(seen, order) {
				t.Errorf("in order: %v", seen)
			}
		}
		if slices.Sort(seen); !slices.Equal(seen, want) {
			t.Errorf("%s: %v", name, seen)
		}
	}
}

func TestAWalkEndsWhereItMust(t *testing.T) {
	deep := open(t, nest(t, tree.MaxDepth+2))
	err := tree.Walk(t.Context(), deep, func(string, fs.FileInfo) error { return nil })
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), fmt.Sprint(tree.MaxDepth)) {
		t.Errorf("too deep: %v", err)
	}
	seen := 0
	if err := tree.Walk(t.Context(), deep, func(string, fs.FileInfo) error { seen++; return fs.SkipDir }); err != nil || seen != 1 {
		t.Errorf("a folder that is skipped: %d, %v", seen, err)
	}
	if err := tree.Walk(t.Context(), deep, func(string, fs.FileInfo) error { seen++; return fs.SkipAll }); err != nil || seen != 2 {
		t.Errorf("all skipped: %d, %v", seen, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := tree.Walk(ctx, deep, func(string, fs.FileInfo) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
