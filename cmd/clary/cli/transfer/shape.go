package transfer

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
)

// DataShape is what a network must fit: the shape of a row, and how many classes.
type DataShape struct {
	Input   []int
	Classes int
	Names   []string // of the classes, if labels are words
}

// maxClasses is how many different labels are still classes.
const maxClasses = 10_000

var errEnough = errors.New("read enough")

// ReadShape reads the shape of CSV data, here or in the object store.
func ReadShape(ctx context.Context, c *client.Client, data string, label spec.Column, header bool) (DataShape, error) {
	if IsRemote(data) {
		data, err := remoteFile(ctx, c, data)
		if err != nil {
			return DataShape{}, err
		}
		reader, writer := io.Pipe()
		var shape DataShape
		var shapeErr error
		read := make(chan struct{})
		go func() {
			defer close(read)
			shape, shapeErr = csvShape(reader, data, label, header)
			reader.CloseWithError(errEnough)
		}()
		_, err = c.GetObject(ctx, data, 0, writer, nil)
		writer.CloseWithError(err) // nil is the end of the data
		<-read
		if err != nil && !errors.Is(err, errEnough) {
			return shape, err
		}
		return shape, shapeErr
	}
	files, err := filesBelow(data)
	if err != nil {
		return DataShape{}, err
	}
	file, err := os.Open(files[0].path)
	if err != nil {
		return DataShape{}, fault.New(fault.Invalid, "read %s: %w", data, err)
	}
	defer file.Close()
	shape, err := csvShape(file, files[0].path, label, header)
	if err == nil && len(files) > 1 {
		return shape, severalFiles(data)
	}
	return shape, err
}

func severalFiles(data string) error {
	return fault.New(fault.Invalid, "%s holds several files: say how many classes there are with --classes, and the shape of a row with --input", data)
}

// remoteFile is the one object that an address names, or that is below it.
func remoteFile(ctx context.Context, c *client.Client, data string) (string, error) {
	if !strings.HasSuffix(data, "/") {
		return data, nil
	}
	var found []string
	err := EachObject(ctx, c, data, true, func(o client.Object, _ string) error {
		if o.URI != "" && o.Size > 0 {
			found = append(found, o.URI)
		}
		if len(found) > 1 {
			return severalFiles(data)
		}
		return nil
	})
	if err == nil && len(found) == 0 {
		err = fault.New(fault.NotFound, "there is nothing below %s: see clary ls", data)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// csvShape reads all rows: the label's classes are known after the last one.
func csvShape(from io.Reader, name string, label spec.Column, header bool) (DataShape, error) {
	buffered := bufio.NewReaderSize(from, 1<<16)
	var text io.Reader = buffered
	if magic, _ := buffered.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		unzipped, err := gzip.NewReader(buffered)
		if err != nil {
			return DataShape{}, fault.New(fault.Invalid, "read %s: %w", name, err)
		}
		text = unzipped
	}
	rows := csv.NewReader(text)
	rows.ReuseRecord, rows.FieldsPerRecord = true, 0
	var names []string
	column, width := -1, 0
	labels := map[string]struct{}{}
	for first := true; ; {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return DataShape{}, fault.New(fault.Invalid, "read %s as CSV: %w", name, err)
		}
		if first {
			first, width = false, len(row)
			if header {
				names = slices.Clone(row)
			}
			if column, err = label.Resolve(width, names); err != nil {
				return DataShape{}, fault.New(fault.Invalid, "%s: %w", name, err)
			}
			if header {
				continue
			}
		}
		if labels[row[column]] = struct{}{}; len(labels) > maxClasses {
			return DataShape{}, fault.New(fault.Invalid, "%s has more than %d different labels in column %s: name another with --label-column, or train for numbers with --loss mse", name, maxClasses, label)
		}
	}
	if len(labels) == 0 || width < 2 {
		return DataShape{}, fault.New(fault.Invalid, "%s has no row of features and a label", name)
	}
	shape := DataShape{Input: []int{width - 1}}
	shape.Classes, shape.Names = countClasses(slices.Sorted(maps.Keys(labels)))
	return shape, nil
}

// countClasses: whole numbers from 0 are classes themselves, words are sorted.
func countClasses(labels []string) (int, []string) {
	most := 0
	for _, label := range labels {
		value, err := strconv.ParseFloat(label, 64)
		if err != nil || value != float64(int(value)) || value < 0 || value > maxClasses {
			return len(labels), labels
		}
		most = max(most, int(value))
	}
	return most + 1, nil
}
