package container

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Bounds on an image's file.
const (
	maxArchive      = 64 << 30 // bytes
	maxArchiveFiles = 10_000
	maxDepth        = 4 // of an index in an index
)

// loadable is what an engine loads, made while it is read.
type loadable struct {
	*io.PipeReader
	made   chan struct{} // closed when nobody needs the folder any more
	folder string
}

func (l loadable) Close() error {
	_ = l.PipeReader.Close() // never fails
	<-l.made
	return os.RemoveAll(l.folder)
}

// openArchive turns an image's file, of `docker save` or an OCI archive, gzipped or not,
// into what every engine loads, with one tag: older ones know no OCI archive, and a file's
// own tags would change what other jobs run. Until it is closed there are files below
// temporary.
func openArchive(from io.Reader, temporary, tag string) (io.ReadCloser, error) {
	named, err := name.NewTag(tag)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp(temporary, "image-*")
	if err != nil {
		return nil, err
	}
	plain := filepath.Join(folder, "plain.tar")
	image, err := v1.Image(nil), gunzip(from, plain)
	if err == nil {
		image, err = imageIn(plain, filepath.Join(folder, "layout"))
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	reader, writer := io.Pipe()
	made := make(chan struct{})
	go func() { // ends when all is read, or the reader is closed
		defer close(made)
		_ = writer.CloseWithError(tarball.Write(named, image, writer)) // never fails
	}()
	return loadable{reader, made, folder}, nil
}

// gunzip writes a file as it is, or what it is when decompressed.
func gunzip(from io.Reader, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	reader := bufio.NewReader(from)
	from = reader
	if head, _ := reader.Peek(2); len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		if from, err = gzip.NewReader(reader); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	n, err := io.Copy(file, io.LimitReader(from, maxArchive+1))
	if err == nil && n > maxArchive {
		err = fmt.Errorf("it is larger than %d bytes", int64(maxArchive))
	}
	return errors.Join(err, file.Close())
}

// imageIn finds the image for this machine in an archive; folder is for its files.
func imageIn(archive, folder string) (v1.Image, error) {
	open := func() (io.ReadCloser, error) { return os.Open(archive) }
	if saved, err := tarball.LoadManifest(open); err == nil {
		if len(saved) != 1 {
			return nil, fmt.Errorf("it holds %d images: save one", len(saved))
		}
		return tarball.Image(open, nil)
	}
	if err := unpack(archive, folder); err != nil {
		return nil, fmt.Errorf("it is neither of docker save nor an OCI archive: %w", err)
	}
	if err := os.Remove(archive); err != nil { // unpacked, it would only take room
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(folder, "oci-layout")); err != nil {
		return nil, errors.New("it has neither manifest.json, as docker save writes, nor oci-layout, as an OCI archive has")
	}
	index, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		return nil, err
	}
	return choose(index, 0)
}

// choose finds the one image for this machine, also in an index inside of the index.
func choose(index v1.ImageIndex, depth int) (v1.Image, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var offered []string
	for _, entry := range manifest.Manifests {
		switch {
		case entry.MediaType.IsIndex() && depth < maxDepth:
			inner, err := index.ImageIndex(entry.Digest)
			if err != nil {
				return nil, err
			}
			return choose(inner, depth+1)
		case entry.MediaType.IsImage():
			image, err := index.Image(entry.Digest)
			if err != nil {
				return nil, err
			}
			config, err := image.ConfigFile()
			if err != nil {
				return nil, err
			}
			if config.OS == "linux" && config.Architecture == runtime.GOARCH || config.Architecture == "" {
				return image, nil
			}
			offered = append(offered, config.OS+"/"+config.Architecture)
		}
	}
	return nil, fmt.Errorf("it has no image for linux/%s; it has %v", runtime.GOARCH, offered)
}

// unpack writes a tar's files into a new folder; nothing leads out of it.
func unpack(archive, folder string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // what was written is closed
	reader := tar.NewReader(file)
	for files := 0; ; files++ {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && files >= maxArchiveFiles {
			err = fmt.Errorf("it has more than %d files", maxArchiveFiles)
		}
		if err == nil {
			err = unpackOne(root, header, reader)
		}
		if err != nil {
			return err
		}
	}
}

// unpackOne writes one file or folder; an OCI archive has nothing else.
func unpackOne(root *os.Root, header *tar.Header, from io.Reader) error {
	name := filepath.Clean(header.Name)
	switch header.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o700)
	case tar.TypeReg:
	default:
		return fmt.Errorf("%s is neither file nor folder", header.Name)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from) // bounded by the archive
	return errors.Join(err, file.Close())
}
