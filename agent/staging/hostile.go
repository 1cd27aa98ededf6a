package staging

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
)

// Folder is a folder that a task controls, and may have replaced by a link to any other.
type Folder struct {
	Base string // above it, which no task can replace
	Name string // below Base, with slashes; "" is Base itself
}

// open takes hold of the folder, if it is still one below its base.
func (f Folder) open() (*os.Root, error) {
	root, err := os.OpenRoot(f.Base)
	if err != nil || f.Name == "" {
		return root, err
	}
	defer root.Close() //nolint:errcheck // the folder has a hold of its own
	return root.OpenRoot(f.Name)
}

// openFile opens a regular file of the folder.
func (f Folder) openFile(name string) (*os.File, error) {
	root, err := f.open()
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // the file has a hold of its own
	return openRegular(root, name)
}

// Remove deletes the folder with all that is in it.
func (f Folder) Remove() error {
	root, err := os.OpenRoot(f.Base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(tree.Remove(root, f.Name), root.Close())
}

// Below is a folder of the contract as seen from the task's own.
func (f Folders) Below(folder string) Folder {
	name, err := filepath.Rel(f.Base, folder)
	if err != nil {
		panic("staging: " + folder + " is none of the task's folders: " + err.Error())
	}
	return Folder{Base: f.Base, Name: name}
}

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
