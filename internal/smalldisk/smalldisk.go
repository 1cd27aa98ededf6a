// Package smalldisk gives tests a disk that they can fill.
package smalldisk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Mount makes a folder that is a disk of so many bytes, in memory, until the test ends. Without root the test is skipped.
func Mount(t testing.TB, size int64) string {
	t.Helper()
	dir := t.TempDir()
	On(t, dir, size)
	return dir
}

// On makes a folder that is there a disk.
func On(t testing.TB, dir string, size int64) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("skipped: a disk that can be filled needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// Fill writes a file until the disk of a folder is full. What it returns deletes the file.
func Fill(t testing.TB, dir string) (free func()) {
	t.Helper()
	return FillAs(t, dir, "filler")
}

// FillAs is Fill with a file of some name.
func FillAs(t testing.TB, dir, name string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, name)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for size := 1 << 20; size > 0; {
		switch _, err := file.Write(make([]byte, size)); {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}
