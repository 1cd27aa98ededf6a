package atomicfile_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/clary-ml/clary/internal/atomicfile"
)

func TestAFileIsReplacedWholeAndNothingIsLeftBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := atomicfile.Write(path, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(want string, mode fs.FileMode) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("read %q, %v; want %q", got, err, want)
		}
		if info, _ := os.Stat(path); info.Mode().Perm() != mode {
			t.Errorf("mode %v, want %v", info.Mode().Perm(), mode)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("%d files in the folder, want 1", len(left))
		}
	}
	check("1", 0o600)
	if err := atomicfile.Write(path, []byte("3"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("3", 0o644)
}
