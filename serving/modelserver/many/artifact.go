package many

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/zeebo/xxh3"

	"github.com/clary-ml/clary/internal/fault"
)

// Archive is how the name of a packed model ends.
const Archive = ".tar.gz"

// checkName refuses what is no name of a model: parts of letters, digits, dots, dashes and
// underlines, with slashes between, none of which begins with a dot.
func checkName(name string) error {
	ok := len(name) > 0 && len(name) <= 256
	for part := range strings.SplitSeq(name, "/") {
		ok = ok && part != "" && part[0] != '.'
	}
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_' || c == '/')
	}
	if !ok {
		return fault.New(fault.Invalid, "%q is no name of a model: give up to 256 letters, digits, dots, dashes, underlines and slashes, as of a file below the models' folder", shortened(name))
	}
	return nil
}

func shortened(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// stamp tells one state of an artifact from another: by the names, sizes and times of its files.
type stamp struct {
	files int
	bytes int64
	sum   uint64
}

func (s *stamp) add(at string, info fs.FileInfo) {
	s.files++
	if info.Mode().IsRegular() {
		s.bytes += info.Size()
		s.sum = xxh3.HashStringSeed(fmt.Sprint(at, info.Size(), info.ModTime().UnixNano()), s.sum)
	}
}

// artifact is where a model lies below the folder of models, and in which state.
type artifact struct {
	path   string
	packed bool
	stamp  stamp
}

// find looks a model's artifact up: what the name says, or the same as an archive. Nothing outside
// of the folder is found, whatever links say.
func find(root *os.Root, name string) (a artifact, err error) {
	for _, at := range []string{name, name + Archive} {
		info, err := root.Stat(at)
		switch {
		case missing(err):
			continue
		case err != nil:
			return a, fault.New(fault.Unready, "look for the model %q: %w", name, err)
		case info.IsDir():
			a = artifact{path: at}
			a.stamp, err = stampOf(root, at)
		case info.Mode().IsRegular():
			a = artifact{path: at, packed: strings.HasSuffix(at, Archive)}
			a.stamp.add(at, info)
		default:
			err = fault.New(fault.Invalid, "the model %q is neither a file nor a folder", name)
		}
		return a, err
	}
	return a, fault.New(fault.NotFound, "there is no model %q: the models' folder has neither that nor %s%s", name, path.Base(name), Archive)
}

// missing says that there is nothing of that name inside of the folder: not that the disk cannot say.
func missing(err error) bool {
	var number syscall.Errno
	if !errors.As(err, &number) {
		return err != nil // it leads out of the folder
	}
	return number == syscall.ENOENT || number == syscall.ENOTDIR || number == syscall.ELOOP || number == syscall.ENAMETOOLONG
}

// most is how many files a model's folder may have.
const most = 100_000

// stampOf is the state of all that a folder has.
func stampOf(root *os.Root, folder string) (s stamp, err error) {
	err = fs.WalkDir(root.FS(), folder, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := root.Stat(at) // of a link, what it leads to
		if missing(err) && entry.Type()&fs.ModeSymlink != 0 {
			return fault.New(fault.Invalid, "the model's folder has a link %s that leads nowhere inside of the models' folder", at)
		}
		if err != nil {
			return err
		}
		if s.add(at, info); s.files > most {
			return fault.New(fault.Invalid, "the model's folder has more than %d files: pack them into a %s", most, Archive)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) { // it is being changed
		err = fault.New(fault.Unready, "the model's folder changes: %w", err)
	}
	return s, err
}
