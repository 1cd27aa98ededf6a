package data

import (
	"context"
	"errors"
	"fmt"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/channel"
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
	files, err := channel.Files(path)
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
		r, err := channel.Open(name)
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
