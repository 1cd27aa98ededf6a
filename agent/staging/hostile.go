package staging

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/clary-ml/clary/internal/fault"
)

// OpenIn opens a regular file below a folder that a task controls: no link leads out of
// the folder, and a pipe or a device blocks nobody.
func OpenIn(folder, path string) (*os.File, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // the file has a hold of its own
	name, err := filepath.Rel(folder, path)
	if err != nil {
		return nil, err
	}
	return openRegular(root, name)
}

func openRegular(root *os.Root, name string) (*os.File, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fault.New(fault.Invalid, "%s is no regular file", name)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// walk visits what is below a folder that a task controls, without following links.
func walk(root *os.Root, visit fs.WalkDirFunc) error { return fs.WalkDir(root.FS(), ".", visit) }
