package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// file is one of the bundle's.
type file struct {
	data       []byte
	executable bool
}

// bundle is what the archive will hold, by path.
type bundle struct {
	version, platform string
	files             map[string]file
}

func (b *bundle) add(name string, data []byte, executable bool) {
	b.files[name] = file{data: data, executable: executable}
}

// passing are what tools leave beside sources.
func passing(name string) bool {
	return name == "__pycache__" || strings.HasSuffix(name, ".egg-info") || strings.HasPrefix(name, ".")
}

// addTree adds a file, or all files of a folder. A folder that is not there is none.
func (b *bundle) addTree(from, to string) error {
	return filepath.WalkDir(from, func(at string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && at == from:
			return nil
		case err != nil:
			return err
		case passing(entry.Name()) && at != from:
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return nil
		case strings.HasSuffix(entry.Name(), ".go"): // tests
			return nil
		case !entry.Type().IsRegular():
			return fmt.Errorf("%s is no plain file: a bundle has no other", at)
		}
		below, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		b.add(path.Join(to, filepath.ToSlash(below)), data, info.Mode()&0o111 != 0)
		return nil
	})
}

//go:embed README.txt
var readme string

// finish adds what tells of the rest.
func (b *bundle) finish() {
	b.add("PLATFORM", []byte(b.platform+"\n"), false)
	b.add("README", []byte(strings.NewReplacer("VERSION", b.version, "PLATFORM", b.platform).Replace(readme)), false)
	var sums bytes.Buffer
	for _, name := range b.names() {
		sum := sha256.Sum256(b.files[name].data)
		fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(sum[:]), name)
	}
	b.add("SHA256SUMS", sums.Bytes(), false)
}

func (b *bundle) names() []string {
	names := make([]string, 0, len(b.files))
	for name := range b.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// name is the folder that the archive unpacks to.
func (b *bundle) name() string { return "clary-" + b.version + "-" + b.platform }

// write puts the archive into a folder, and its checksum beside it.
func (b *bundle) write(to string, at time.Time) (string, error) {
	target := filepath.Join(to, b.name()+".tar.gz")
	out, err := os.Create(target)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	err = errors.Join(b.pack(io.MultiWriter(out, sum), at), out.Close())
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("%x  %s\n", sum.Sum(nil), filepath.Base(target))
	return target, os.WriteFile(target+".sha256", []byte(line), 0o644)
}

// pack writes a tar of all files in order, each of the same time and of nobody.
func (b *bundle) pack(out io.Writer, at time.Time) error {
	compressed, err := gzip.NewWriterLevel(out, gzip.DefaultCompression)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressed)
	for _, name := range b.names() {
		f := b.files[name]
		header := tar.Header{
			Typeflag: tar.TypeReg, Name: b.name() + "/" + name, Size: int64(len(f.data)), Mode: 0o644, ModTime: at.Truncate(time.Second),
		}
		if f.executable {
			header.Mode = 0o755
		}
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
		if _, err := archive.Write(f.data); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), compressed.Close())
}
