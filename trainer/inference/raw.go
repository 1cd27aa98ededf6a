package inference

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/data"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/trainer/table"
)

// Rows says what labelled rows are to a model that has a transform.
type Rows string

// What rows may be. A model without a transform takes them as they are, whatever is said.
const (
	RowsUnsaid   Rows = ""         // it is found out, or refused where it cannot be
	RowsRaw      Rows = "raw"      // they are still to go through the transform
	RowsPrepared Rows = "prepared" // they went through it before
)

// takesRaw reports whether rows are still to go through the model's transform. If nobody says it,
// they went through it before if their columns are those that it makes and not those that it
// takes; or, where these have the same names, if the very transform lies where the preparation
// puts it. Such rows with nothing beside them may be either, and to guess would be to scale twice
// or never: only a file without a header is raw for certain, where preparing gives it one.
func (m *Model) takesRaw(path string, said Rows) (bool, error) {
	t := m.Learned()
	if t == nil {
		return false, nil
	}
	if said != RowsUnsaid {
		return said == RowsRaw, nil
	}
	headless := m.Data.Format == spec.FormatCSV && !m.Data.Header
	if headless && m.besides(path) {
		return false, nil // prepared rows without a header
	}
	source, named, err := m.openRows(path)
	if err != nil {
		return false, err
	}
	var names, inputs []string
	for _, f := range source.Fields {
		if f.Name != t.Label {
			names = append(names, f.Name)
		}
	}
	for _, f := range t.Input {
		inputs = append(inputs, f.Name)
	}
	made := slices.Equal(names, t.Output)
	slices.Sort(names)
	slices.Sort(inputs)
	switch {
	case !made:
		return true, nil
	case !slices.Equal(names, inputs):
		return false, nil
	case m.besides(path):
		return false, nil
	case !named && !headless:
		return true, nil
	}
	return false, fault.New(fault.Invalid, "%s: its columns have the same names before and after the model's transform, and no %s/%s lies beside it: say with --rows raw or --rows prepared what it has",
		path, prepare.TransformFolder, prepare.TransformFile)
}

// openRows opens rows that are raw or went through the transform, and reports whether the file
// names its columns. Where the raw ones that it was learned from had no header, a file has one
// only if its first line holds names.
func (m *Model) openRows(path string) (source *table.Source, named bool, err error) {
	t := m.Learned()
	source, err = table.Open(path, table.Options{Missing: t.Missing})
	if len(t.Columns) == 0 || err == nil && headed(source.Fields, t) {
		return source, true, err
	}
	source, err = table.Open(path, table.Options{Missing: t.Missing, Columns: t.Columns})
	return source, false, err
}

// headed reports whether some of the names are those of columns that the transform takes or makes.
func headed(fields []table.Field, t *prepare.Transform) bool {
	return slices.ContainsFunc(fields, func(f table.Field) bool {
		return slices.Contains(t.Columns, f.Name) || slices.Contains(t.Output, f.Name)
	})
}

// besides reports whether the model's own transform lies beside a part that was prepared, or
// beside the folder of a file of it.
func (m *Model) besides(path string) bool {
	path = filepath.Clean(path)
	for _, folder := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		text, err := os.ReadFile(filepath.Join(folder, prepare.TransformFolder, prepare.TransformFile))
		if sum := sha256.Sum256(text); err == nil && hex.EncodeToString(sum[:]) == m.Manifest.Transform.SHA256 {
			return true
		}
	}
	return false
}

// readRaw reads labelled raw rows and puts them through the transform.
func (m *Model) readRaw(ctx context.Context, path string) (data.Table, error) {
	t := m.Learned()
	out := data.Table{Width: m.Width()}
	if t.Label == "" {
		return out, fault.New(fault.Invalid, "the model's transform was learned without a label, so raw rows have none: prepare the data with --label")
	}
	source, _, err := m.openRows(path)
	if err != nil {
		return out, err
	}
	for i := range source.Fields {
		at := slices.IndexFunc(t.Input, func(f table.Field) bool { return f.Name == source.Fields[i].Name })
		if at >= 0 && source.Fields[i].Kind == table.Text { // only Parquet knows kinds before
			source.Fields[i].Kind = t.Input[at].Kind
		}
	}
	layout, row := data.LayoutFor(m.Data, m.Plan), 0
	_, err = source.Each(ctx, func(b table.Batch) error {
		label := b.Column(t.Label)
		if label == nil {
			return fault.New(fault.Invalid, "the label's column %q is missing", t.Label)
		}
		for i := range b.Rows {
			row++
			text := ""
			if label.Kind == table.Text {
				text = label.Texts[i]
			} else {
				text = strconv.FormatFloat(label.Numbers[i], 'g', -1, 64)
			}
			v, err := layout.ParseLabel(text)
			if err != nil {
				return fmt.Errorf("row %d: %w", row, err)
			}
			out.Labels = append(out.Labels, v)
		}
		var err error
		out.Features, err = m.AppendRows(out.Features, &b)
		return err
	})
	if err == nil && out.Rows() == 0 {
		err = fault.New(fault.Invalid, "%s: no rows", path)
	}
	return out, err
}
