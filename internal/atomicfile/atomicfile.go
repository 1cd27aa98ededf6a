// Package atomicfile writes small files so that a reader, or a crash, meets the old
// content or the new and nothing between.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces the file at path. When it returns, the content is on disk.
func Write(path string, content []byte, mode fs.FileMode) error {
	return place(path, content, mode, os.Rename)
}

// Create is Write for a file that must not exist yet: it fails with fs.ErrExist if it
// does, and of several at the same time one succeeds.
func Create(path string, content []byte, mode fs.FileMode) error {
	return place(path, content, mode, os.Link)
}

// place writes beside path, moves the result there, and syncs both file and folder.
func place(path string, content []byte, mode fs.FileMode, move func(from, to string) error) error {
	dir := filepath.Dir(path)
	part, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name()) // after a rename there is nothing left to remove
	_, err = part.Write(content)
	err = errors.Join(err, part.Chmod(mode), part.Sync(), part.Close())
	if err == nil {
		err = move(part.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
