package data

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
)

// ReadShard reads a training channel, a folder or one file, and keeps what the split gives.
func ReadShard(ctx context.Context, path string, l Layout, split Split) (Shard, error) {
	s := Shard{Train: Table{Width: l.Width}, Validation: Table{Width: l.Width}}
	err := readAll(ctx, path, l, func(row int, features []float32, label float32) error {
		return s.deal(split, row, features, label)
	})
	return s, err
}

// ReadTable reads every row of a folder or a file.
func ReadTable(ctx context.Context, path string, l Layout) (Table, error) {
	t := Table{Width: l.Width}
	err := readAll(ctx, path, l, func(_ int, features []float32, label float32) error {
		return t.add(features, label)
	})
	return t, err
}

// Visit is called with each row in turn; features is only valid until it returns.
type Visit func(row int, features []float32, label float32) error

func readAll(ctx context.Context, path string, l Layout, visit Visit) error {
	files, err := list(path)
	if err != nil {
		return err
	}
	row := 0
	next := func(_ int, features []float32, label float32) error {
		row++
		if row%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return visit(row-1, features, label)
	}
	if l.Format == spec.FormatIDX {
		err = readPairs(files, l, next)
	} else {
		err = readTables(files, l, next)
	}
	if err != nil {
		return err
	}
	if row == 0 {
		return fault.New(fault.Invalid, "%s: no rows in %d files", path, len(files))
	}
	return nil
}

func readTables(files []string, l Layout, visit Visit) error {
	for _, name := range files {
		r, err := open(name)
		if err != nil {
			return err
		}
		err = errors.Join(ReadCSV(r, l, visit), r.Close())
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// list returns the files of a channel in order of their names. Names that begin with a
// dot or an underscore are markers that other tools leave behind, not data.
func list(path string) ([]string, error) {
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

// source is a file, unpacked if it is gzip by its first two bytes.
type source struct {
	*bufio.Reader
	zip  *gzip.Reader
	file *os.File
}

func open(name string) (*source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.New(fault.NotFound, "read data: %w", err)
	}
	s := &source{Reader: bufio.NewReaderSize(f, 1<<16), file: f}
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
func (s *source) Close() error {
	if s.zip != nil {
		_ = s.zip.Close() // it holds no resource, and its checksum was checked at the end
	}
	return s.file.Close()
}

// broken classifies an error of the bytes beneath a format.
func broken(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "it ends too early: was it copied whole?")
	}
	if errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) {
		return fault.New(fault.Invalid, "damaged: %w", err)
	}
	return fault.New(fault.Invalid, "read: %w", err)
}
