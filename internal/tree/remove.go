package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// lifted is how a folder that lay too deep is called until it is removed.
const lifted = ".clary-removed-"

// RemoveAll is os.RemoveAll for a tree of any depth, in which nothing changes any more. What
// was made unreadable is removed too.
func RemoveAll(at string) error {
	root, err := os.OpenRoot(filepath.Dir(at))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(Remove(root, filepath.Base(at)), root.Close())
}

// Remove deletes a file or folder below root, with all that is in it. None is no error.
func Remove(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	switch {
	case err != nil:
		return ignoreMissing(err)
	case !info.IsDir():
		return ignoreMissing(root.Remove(name))
	}
	top, err := enter(root, name)
	if err != nil {
		return ignoreMissing(err)
	}
	err = (&remover{top: top}).content(top, ".", 0)
	if err = errors.Join(err, top.Close()); err != nil {
		return err
	}
	return ignoreMissing(root.Remove(name))
}

// remover goes down so far, and lifts what lies deeper up to the top, where it is found
// again.
type remover struct {
	top   *os.Root
	count int
}

// content removes what is in a folder, whose path below the top is at.
func (r *remover) content(folder *os.Root, at string, depth int) error {
	for {
		names, err := list(folder)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := r.one(folder, name, path.Join(at, name), depth); err != nil {
				return err
			}
		}
	}
}

func (r *remover) one(folder *os.Root, name, at string, depth int) error {
	info, err := folder.Lstat(name)
	switch {
	case err != nil:
		return ignoreMissing(err)
	case !info.IsDir():
		return ignoreMissing(folder.Remove(name))
	case depth == MaxDepth:
		return r.lift(at)
	}
	below, err := enter(folder, name)
	if err != nil {
		return err
	}
	err = r.content(below, at, depth+1)
	if err = errors.Join(err, below.Close()); err != nil {
		return err
	}
	return ignoreMissing(folder.Remove(name))
}

// lift puts a folder directly below the top.
func (r *remover) lift(at string) error {
	for {
		r.count++
		name := fmt.Sprintf("%s%d", lifted, r.count)
		if _, err := r.top.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return r.top.Rename(at, name)
		} else if err != nil {
			return err
		}
	}
}

// enter opens a folder, and makes it its owner's to change first if it must.
func enter(folder *os.Root, name string) (*os.Root, error) {
	below, err := folder.OpenRoot(name)
	if err == nil && os.Geteuid() == 0 {
		return below, nil // whom no mode keeps out
	}
	if err == nil {
		_ = below.Close()
	}
	if err := folder.Chmod(name, 0o700); err != nil {
		return nil, err
	}
	return folder.OpenRoot(name)
}

// list reads some of a folder's names, none if it is empty.
func list(folder *os.Root) ([]string, error) {
	listed, err := folder.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := listed.Readdirnames(block)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, errors.Join(err, listed.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
