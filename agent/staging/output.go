package staging

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
)

// Pack writes a folder as tar.gz. The same content makes the same bytes: names in
// order, no times, owners or other modes than the executable bit. What is neither
// file, folder nor symbolic link inside the folder is refused. What skip says, if it is not
// nil, is left out, a folder with all that is below it.
func Pack(ctx context.Context, folder string, to io.Writer, skip func(name string, dir bool) bool) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only read
	return pack(ctx, root, to, skip)
}

func pack(ctx context.Context, root *os.Root, to io.Writer, skip func(name string, dir bool) bool) error {
	zipped, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(zipped)
	err = tree.Sorted(ctx, root, func(name string, info fs.FileInfo) error {
		if skip != nil && skip(name, info.IsDir()) {
			return fs.SkipDir
		}
		return packOne(archive, root, name, info)
	})
	return errors.Join(err, archive.Close(), zipped.Close())
}

func packOne(archive *tar.Writer, root *os.Root, name string, info fs.FileInfo) (err error) {
	header := &tar.Header{Name: name, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if info.Mode()&0o100 != 0 {
		header.Mode = 0o755
	}
	switch {
	case info.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
		return archive.WriteHeader(header)
	case info.Mode()&fs.ModeSymlink != 0:
		header.Typeflag = tar.TypeSymlink
		if header.Linkname, err = root.Readlink(name); err != nil {
			return err
		}
		if !filepath.IsLocal(filepath.Join(filepath.Dir(name), header.Linkname)) || filepath.IsAbs(header.Linkname) {
			return fault.New(fault.Invalid, "%s links to %s, outside of the folder: copy what is meant", name, header.Linkname)
		}
		return archive.WriteHeader(header)
	case !info.Mode().IsRegular():
		return fault.New(fault.Invalid, "%s is neither file, folder nor link: it cannot be packed", name)
	}
	file, err := openRegular(root, name)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	if _, err = io.CopyN(archive, file, info.Size()); err != nil {
		return fmt.Errorf("pack %s: it changes while it is read: %w", name, err)
	}
	return nil
}

// Upload packs a folder and writes it under the URI. A folder that holds nothing is
// no output: false.
func Upload(ctx context.Context, store Store, name string, folder Folder, uri, scratch string) (cluster.Output, bool, error) {
	root, err := folder.open()
	if errors.Is(err, os.ErrNotExist) {
		return cluster.Output{}, false, nil
	}
	if err != nil {
		return cluster.Output{}, false, fault.New(fault.Invalid, "pack output %s: %w", name, err)
	}
	defer root.Close() //nolint:errcheck // only read
	items, err := fs.ReadDir(root.FS(), ".")
	if err == nil && len(items) == 0 {
		return cluster.Output{}, false, nil
	}
	bucket, key, errURI := ParseURI(uri)
	if err := errors.Join(err, errURI); err != nil {
		return cluster.Output{}, false, err
	}
	file, err := os.CreateTemp(scratch, ".pack-*")
	if err != nil {
		return cluster.Output{}, false, fault.New(fault.Internal, "pack output %s: %w", name, err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // swept with the task's folder
	defer file.Close()           //nolint:errcheck // only read from here on
	sum := sha256.New()
	if err := pack(ctx, root, io.MultiWriter(file, sum), nil); err != nil {
		return cluster.Output{}, false, fault.New(fault.KindOf(err), "pack output %s: %w", name, err)
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = store.Put(ctx, bucket, key, file, size)
	}
	if err != nil {
		return cluster.Output{}, false, fault.New(fault.KindOf(err), "upload output %s to %s: %w", name, uri, err)
	}
	return cluster.Output{Name: name, URI: uri, SHA256: hex.EncodeToString(sum.Sum(nil)), Size: size}, true, nil
}
