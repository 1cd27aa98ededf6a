package staging

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
)

// bounds are on what an archive becomes.
type bounds struct {
	files  int
	bytes  int64
	remedy string // for what is larger
}

func sourceBounds() bounds {
	return bounds{100_000, 4 << 30, "leave out what the program does not need, or give it as an input"}
}

func modelBounds() bounds {
	return bounds{1_000_000, 64 << 30, "keep its files below a prefix that ends with a slash, and name that"}
}

// FetchSource unpacks the .tar.gz at an s3:// address into a folder. scratch is a folder of
// the agent's own, on the same file system.
func FetchSource(ctx context.Context, store Reader, cache *Cache, uri, scratch, folder string) error {
	bucket, key, err := ParseURI(uri)
	if err != nil {
		return err
	}
	objects, _, err := find(ctx, store, bucket, key)
	if err != nil {
		return fault.New(fault.KindOf(err), "source: list %s: %w", uri, err)
	}
	if len(objects) != 1 || objects[0].Key != key {
		return fault.New(fault.NotFound, "source: there is no object %s", uri)
	}
	archive := filepath.Join(scratch, "source.tar.gz")
	if err := cache.Place(ctx, store, bucket, objects[0], archive); err != nil {
		return fault.New(fault.KindOf(err), "source %s: %w", uri, err)
	}
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read
	if err := Unpack(file, folder); err != nil {
		return fault.New(fault.KindOf(err), "source %s: %w", uri, err)
	}
	return nil
}

// Unpack writes a .tar.gz's files, folders and links below a folder. Names and links that
// lead out of it are refused, and so is what is none of these.
func Unpack(from io.Reader, folder string) error {
	return unpack(from, folder, "", sourceBounds(), nil)
}

// UnpackBelow is Unpack of an archive whose files are all in one folder of that name, out of
// which no link leads either. What Unpack would refuse is left out, and told.
func UnpackBelow(from io.Reader, folder, name string, leftOut func(name string, why error)) error {
	most := sourceBounds()
	most.remedy = "copy parts of it one by one"
	return unpack(from, folder, name, most, leftOut)
}

func unpack(from io.Reader, folder, within string, most bounds, leftOut func(name string, why error)) error {
	zipped, err := gzip.NewReader(from)
	if err != nil {
		return fault.New(fault.Invalid, "it is no .tar.gz: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // its files are closed one by one
	archive := tar.NewReader(zipped)
	left := most.bytes
	for range most.files + 1 { // and its end
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.New(fault.Invalid, "it is no whole .tar.gz: %w", err)
		}
		if left -= header.Size; left < 0 {
			return fault.New(fault.Invalid, "it holds more than %s unpacked: %s", cluster.FormatBytes(most.bytes), most.remedy)
		}
		err = unpackOne(root, header, within, archive)
		if fault.Is(err, fault.Invalid) && leftOut != nil {
			leftOut(header.Name, err)
			continue
		}
		if err != nil {
			return fault.New(fault.Invalid, "%q cannot be unpacked: %w", cluster.Clip(header.Name), err)
		}
	}
	return fault.New(fault.Invalid, "it holds more than %d files: %s", most.files, most.remedy)
}

func unpackOne(root *os.Root, header *tar.Header, within string, content io.Reader) error {
	name := path.Clean(header.Name)
	if name == "." {
		return nil
	}
	if strings.Count(name, "/") > tree.MaxDepth {
		return fault.New(fault.Invalid, "more than %d folders lie in one another", tree.MaxDepth)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		to := path.Join(path.Dir(name), header.Linkname)
		if path.IsAbs(header.Linkname) || !filepath.IsLocal(to) || within != "" && to != within && !strings.HasPrefix(to, within+"/") {
			return fault.New(fault.Invalid, "it links to %s, outside of the folder", cluster.Clip(header.Linkname))
		}
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return root.Symlink(header.Linkname, name)
	case tar.TypeReg:
		mode := fs.FileMode(0o644)
		if header.Mode&0o100 != 0 {
			mode = 0o755
		}
		file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		return errors.Join(err, file.Close())
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fault.New(fault.Invalid, "it is neither file, folder nor link")
}
