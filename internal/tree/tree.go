// Package tree walks and removes folders whose content somebody hostile decides, and may
// change meanwhile: no link is followed out of them, and however deep or full they are, a
// bounded number of descriptors is open.
package tree

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// MaxDepth is how many folders may lie in one another.
const MaxDepth = 100

const (
	maxSorted = 1 << 20 // names of one folder that are put in order
	block     = 1024    // names that are read at a time
)

// Visit is told of one file, folder, link or other, by its name below the root with slashes.
// It may answer fs.SkipDir for a folder, or fs.SkipAll.
type Visit func(name string, info fs.FileInfo) error

// Walk visits what is below a folder, in no order, the folder itself left out. What goes
// while it is looked at is left out, and so is what lies on another file system. Folders that
// lie too deep are an Invalid error.
func Walk(ctx context.Context, root *os.Root, visit Visit) error {
	return begin(ctx, root, visit, false)
}

// Sorted is Walk in the order of names, folder by folder. A folder with more than a million
// names is an Invalid error.
func Sorted(ctx context.Context, root *os.Root, visit Visit) error {
	return begin(ctx, root, visit, true)
}

// walker is one walk.
type walker struct {
	ctx    context.Context
	visit  Visit
	sorted bool
	on     uint64 // the file system
}

func begin(ctx context.Context, root *os.Root, visit Visit, sorted bool) error {
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	err = (&walker{ctx: ctx, visit: visit, sorted: sorted, on: device(info)}).folder(root, ".", 0)
	if errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

// folder visits what is in a folder that is called at below the root.
func (w *walker) folder(folder *os.Root, at string, depth int) error {
	listed, err := folder.Open(".")
	if err != nil {
		return err
	}
	defer listed.Close() //nolint:errcheck // only read
	var all []string
	for {
		names, err := listed.Readdirnames(block)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if w.sorted {
			all = append(all, names...)
			names = nil
		}
		if len(all) > maxSorted {
			return fault.New(fault.Invalid, "%s holds more than %d files", at, maxSorted)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err := w.each(folder, at, names, depth); err != nil {
			return err
		}
	}
	slices.SortFunc(all, strings.Compare)
	return w.each(folder, at, all, depth)
}

func (w *walker) each(folder *os.Root, at string, names []string, depth int) error {
	for _, name := range names {
		if err := w.one(folder, path.Join(at, name), name, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) one(folder *os.Root, at, name string, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	info, err := folder.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && device(info) != w.on {
		return nil
	}
	if err != nil {
		return err
	}
	switch err := w.visit(at, info); {
	case errors.Is(err, fs.SkipDir):
		return nil
	case err != nil || !info.IsDir():
		return err
	case depth == MaxDepth:
		return fault.New(fault.Invalid, "more than %d folders lie in one another", MaxDepth)
	}
	below, err := folder.OpenRoot(name)
	if err != nil {
		if now, gone := folder.Lstat(name); gone != nil || !now.IsDir() {
			return nil // it was replaced
		}
		return err
	}
	defer below.Close() //nolint:errcheck // only read
	return w.folder(below, at, depth+1)
}
