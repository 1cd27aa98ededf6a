package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/trainer/table"
)

// readTransform reads what the rows went through before, if they did, and refuses what cannot be
// that: at serving it would turn raw rows into others than the network has learned from.
func (o *Options) readTransform(plan spec.Plan) (*prepare.Transform, error) {
	if o.Transform == "" {
		return nil, nil
	}
	path := filepath.Join(o.Transform, prepare.TransformFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	t, err := prepare.Load(path)
	if err != nil {
		return nil, err
	}
	if err := checkpoint.CheckTransform(t, plan); err != nil {
		return nil, err
	}
	if o.Data.Format != spec.FormatCSV || !o.Data.Header {
		return t, nil
	}
	source, err := table.Open(o.Train, table.Options{Format: table.CSV})
	if err != nil {
		return nil, fmt.Errorf("training data: %w", err)
	}
	var names []string
	for _, f := range source.Fields {
		names = append(names, f.Name)
	}
	label, err := o.Data.Label.Resolve(len(names), names)
	if err != nil {
		return nil, fault.New(fault.Invalid, "training data: %w", err)
	}
	if names = slices.Delete(names, label, label+1); !slices.Equal(names, t.Output) {
		return nil, fault.New(fault.Invalid, "the transform makes the columns %s, and the training data has %s: give the transform that it was prepared with", brief(t.Output), brief(names))
	}
	return t, nil
}

// brief is the beginning of a list of names.
func brief(names []string) string {
	if len(names) > 8 {
		return fmt.Sprintf("%q and %d more", names[:8], len(names)-8)
	}
	return fmt.Sprintf("%q", names)
}
