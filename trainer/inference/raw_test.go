package inference_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/inference"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/trainer/table"
)

// A transform that was learned from files without a header takes such files, in their order, and
// also those that name their columns.
func TestRawRowsNeedAHeaderOnlyIfThoseOfTheTransformHadOne(t *testing.T) {
	judge := func(columns []string, rows string) (float64, error) {
		t.Helper()
		dir := t.TempDir()
		learned := &prepare.Transform{
			Version: "clary-transform/1", Label: "side", Columns: columns,
			Input: []table.Field{{Name: "0", Kind: table.Number}, {Name: "1", Kind: table.Number}}, Output: []string{"0", "1"},
		}
		m := checkpoint.Manifest{
			Network:   spec.Network{Input: []int{2}, Layers: []spec.Layer{{Dense: &spec.Dense{Units: 2}}}, Loss: spec.CrossEntropy},
			Data:      spec.Data{Format: spec.FormatCSV, Header: true, Classes: []string{"left", "right"}},
			Transform: &checkpoint.Transformed{Transform: learned},
		}
		if err := checkpoint.SaveModel(dir, m, []float32{1, 0, 0, 1, 0, 0}); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "rows.csv")
		if err := os.WriteFile(path, []byte(rows), 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := inference.Evaluate(t.Context(), dir, path, inference.RowsUnsaid, network.Gonum())
		if err != nil {
			return 0, err
		}
		return float64(e.Rows) + e.Accuracy/2, nil
	}
	plain := []string{"0", "side", "1"}
	for _, c := range []struct {
		columns []string
		rows    string
		want    float64 // rows, and half of the accuracy
	}{
		{plain, "5,left,2\n2,right,5\n2,right,2\n2,right,7\n", 4.375},
		{plain, "5,left,5\n5,left,2\n", 2.5}, // a first line that would be no header
		{plain, "1,0,side\n2,5,left\n2,5,right\n", 2.25},
		{nil, "1,0,side\n2,5,left\n2,5,right\n", 2.25},
	} {
		if got, err := judge(c.columns, c.rows); err != nil || got != c.want {
			t.Errorf("%v, %q: %v, %v, want %v", c.columns, c.rows, got, err, c.want)
		}
	}
	if _, err := judge(nil, "5,left,2\n2,right,5\n"); err == nil {
		t.Error("a file without a header is taken where there was one")
	}
}
