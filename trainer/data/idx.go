package data

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/channel"
)

// An idx file is two zero bytes, a type, the number of dimensions, each dimension as a
// big-endian uint32, and the values: the format of the MNIST files.
type idxHeader struct {
	kind byte
	dims []int
}

// The element types of idx that are read.
const (
	idxUint8   = 0x08
	idxFloat32 = 0x0d
)

const (
	maxIDXDims = 4
	// idxBlock is how many bytes are read at a time.
	idxBlock = 1 << 16
)

func readIDXHeader(r io.Reader) (idxHeader, error) {
	var magic [4]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return idxHeader{}, channel.Broken(err)
	}
	h := idxHeader{kind: magic[2]}
	n := int(magic[3])
	if magic[0] != 0 || magic[1] != 0 || (h.kind != idxUint8 && h.kind != idxFloat32) || n < 1 || n > maxIDXDims {
		return h, fault.New(fault.Invalid, "begins with % x: not an idx file of bytes (00 00 08) or float32 (00 00 0d) with 1 to %d dimensions", magic, maxIDXDims)
	}
	sizes := make([]byte, 4*n)
	if _, err := io.ReadFull(r, sizes); err != nil {
		return h, channel.Broken(err)
	}
	total := int64(1)
	for i := range n {
		d := binary.BigEndian.Uint32(sizes[4*i:])
		if d > 1<<30 || total*int64(d) > 1<<40 {
			return h, fault.New(fault.Invalid, "dimension %d is %d: too large", i, d)
		}
		if i > 0 {
			total *= int64(d)
		}
		h.dims = append(h.dims, int(d))
	}
	return h, nil
}

// width is the number of values of one row.
func (h idxHeader) width() int {
	w := 1
	for _, d := range h.dims[1:] {
		w *= d
	}
	return w
}

// read fills values with the next ones of the file.
func (h idxHeader) read(r io.Reader, buffer []byte, values []float32) error {
	size := 1
	if h.kind == idxFloat32 {
		size = 4
	}
	for len(values) > 0 {
		n := min(len(values), len(buffer)/size)
		if _, err := io.ReadFull(r, buffer[:n*size]); err != nil {
			return channel.Broken(err)
		}
		for i := range n {
			if size == 1 {
				values[i] = float32(buffer[i])
				continue
			}
			values[i] = math.Float32frombits(binary.BigEndian.Uint32(buffer[4*i:]))
			if v := float64(values[i]); math.IsNaN(v) || math.IsInf(v, 0) {
				return fault.New(fault.Invalid, "a value is not a finite number")
			}
		}
		values = values[n:]
	}
	return nil
}

// ReadIDX reads a file of features, its first dimension the rows, beside one of labels.
// labels is nil where the layout is unlabelled.
func ReadIDX(features, labels io.Reader, l Layout, visit Visit) error {
	fh, err := readIDXHeader(features)
	if err != nil {
		return fmt.Errorf("features: %w", err)
	}
	if len(fh.dims) < 2 || fh.width() != l.Width {
		return fault.New(fault.Invalid, "features: rows of shape %v have %d values: the network's input needs %d", fh.dims[1:], fh.width(), l.Width)
	}
	var lh idxHeader
	if !l.Unlabelled {
		if lh, err = readIDXHeader(labels); err != nil {
			return fmt.Errorf("labels: %w", err)
		}
		if len(lh.dims) != 1 || lh.dims[0] != fh.dims[0] {
			return fault.New(fault.Invalid, "labels: shape %v for %d rows of features: give one label a row", lh.dims, fh.dims[0])
		}
	}
	buffer, row, label := make([]byte, idxBlock), make([]float32, l.Width), make([]float32, 1)
	for i := range fh.dims[0] {
		if err := fh.read(features, buffer, row); err != nil {
			return fmt.Errorf("features: row %d: %w", i, err)
		}
		scale := l.scale()
		for j := range row {
			row[j] *= scale
		}
		if !l.Unlabelled {
			if err := lh.read(labels, buffer, label); err != nil {
				return fmt.Errorf("labels: row %d: %w", i, err)
			}
			if err := checkLabel(label[0], l.ClassCount); err != nil {
				return fmt.Errorf("labels: row %d: %w", i, err)
			}
		}
		if err := visit(i, row, label[0]); err != nil {
			return err
		}
	}
	if err := ended("features", features); err != nil || l.Unlabelled {
		return err
	}
	return ended("labels", labels)
}

// ended refuses bytes after the last row, and reads to the end so that gzip's checksum
// is checked.
func ended(what string, r io.Reader) error {
	var one [1]byte
	switch n, err := io.ReadFull(r, one[:]); {
	case n > 0:
		return fault.New(fault.Invalid, "%s: more bytes than the header says", what)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return fmt.Errorf("%s: %w", what, channel.Broken(err))
	}
}

// readPairs tells files of features from files of labels by their dimensions, and pairs
// the first with the first, in order of their names.
func readPairs(files []string, l Layout, visit Visit) error {
	var features, labels []string
	for _, name := range files {
		r, err := channel.Open(name)
		if err != nil {
			return err
		}
		h, err := readIDXHeader(r)
		if err = errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if len(h.dims) == 1 {
			labels = append(labels, name)
		} else {
			features = append(features, name)
		}
	}
	if !l.Unlabelled && len(features) != len(labels) {
		return fault.New(fault.Invalid, "%d files of features and %d of labels: give one file of labels for each", len(features), len(labels))
	}
	for i, name := range features {
		label := ""
		if !l.Unlabelled {
			label = labels[i]
		}
		if err := readPair(name, label, l, visit); err != nil {
			return fmt.Errorf("%s with %s: %w", name, label, err)
		}
	}
	return nil
}

func readPair(features, labels string, l Layout, visit Visit) (err error) {
	f, err := channel.Open(features)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if l.Unlabelled {
		return ReadIDX(f, nil, l, visit)
	}
	s, err := channel.Open(labels)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return ReadIDX(f, s, l, visit)
}
