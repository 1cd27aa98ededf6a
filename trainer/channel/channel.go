// Package channel finds and opens the files of a channel: a folder, or one file, that was
// put beside a task for it to read.
package channel

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// Files returns the files of a channel in order of their names. Names that begin with a
// dot or an underscore are markers that other tools leave behind, not data.
func Files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "read data: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") {
			return err
		}
		files = append(files, name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read data: %w", err)
	}
	if len(files) == 0 {
		return nil, fault.New(fault.NotFound, "%s has no files: give the channel data", path)
	}
	return files, nil
}

// File is an open file, unpacked if it is gzip by its first two bytes.
type File struct {
	*bufio.Reader
	zip  *gzip.Reader
	file *os.File
}

// Open opens a file for reading from its beginning.
func Open(name string) (*File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.New(fault.NotFound, "read data: %w", err)
	}
	s := &File{Reader: bufio.NewReaderSize(f, 1<<16), file: f}
	if magic, _ := s.Peek(2); len(magic) < 2 || magic[0] != 0x1f || magic[1] != 0x8b {
		return s, nil
	}
	if s.zip, err = gzip.NewReader(s.Reader); err != nil {
		return nil, errors.Join(fault.New(fault.Invalid, "%s: gzip: %w", name, err), f.Close())
	}
	s.Reader = bufio.NewReaderSize(s.zip, 1<<16)
	return s, nil
}

// Close closes the file.
func (s *File) Close() error {
	if s.zip != nil {
		_ = s.zip.Close() // it holds no resource, and its checksum was checked at the end
	}
	return s.file.Close()
}

// Broken classifies an error of the bytes beneath a format.
func Broken(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "it ends too early: was it copied whole?")
	}
	if errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) {
		return fault.New(fault.Invalid, "damaged: %w", err)
	}
	return fault.New(fault.Invalid, "read: %w", err)
}
