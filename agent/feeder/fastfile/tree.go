package fastfile

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	"github.com/clary-ml/clary/agent/staging"
)

// tree is a list of objects, in the order of their names, seen as folders and files: a
// folder is a run of the list. So a million objects cost no more than their list.
type tree []staging.Item

// folder is the run of objects whose names begin with prefix, which is "" or ends with '/'.
type folder struct {
	prefix string
	lo, hi int
}

func newTree(items []staging.Item) tree {
	t := tree(slices.Clone(items))
	slices.SortFunc(t, func(a, b staging.Item) int { return cmp.Compare(a.Name, b.Name) })
	return t
}

func (t tree) root() folder { return folder{"", 0, len(t)} }

// seek is the first object of a folder whose name is not before the given one.
func (t tree) seek(f folder, name string) int {
	return f.lo + sort.Search(f.hi-f.lo, func(i int) bool { return t[f.lo+i].Name >= name })
}

// file is the object of that name in a folder, -1 if there is none.
func (t tree) file(f folder, name string) int {
	if i := t.seek(f, f.prefix+name); i < f.hi && t[i].Name == f.prefix+name {
		return i
	}
	return -1
}

// below is a folder's folder of that name, empty if there is none.
func (t tree) below(f folder, name string) folder {
	prefix := f.prefix + name + "/"
	lo := t.seek(f, prefix)
	return folder{prefix, lo, t.seek(folder{prefix, lo, f.hi}, f.prefix+name+"0")} // '0' follows '/'
}

func (f folder) empty() bool { return f.lo >= f.hi }

// child is what a folder holds: a file, or a folder if object is -1.
type child struct {
	name   string
	object int
	below  folder
}

// next is a folder's first child from the i-th object on, and where to look for the one
// after it.
func (t tree) next(f folder, i int) (child, int) {
	name := t[i].Name[len(f.prefix):]
	top, _, isFolder := strings.Cut(name, "/")
	if !isFolder {
		return child{name: name, object: i}, i + 1
	}
	below := t.below(f, top)
	return child{name: top, object: -1, below: below}, below.hi
}
