package table_test

import (
	"math"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/trainer/table"
)

// A cell is the number that strconv reads, to the bit, or none.
func TestCellsAreTheNumbersThatTheySay(t *testing.T) {
	there := 0
	fields := []table.Field{{Name: "x", Kind: table.Number}, {Name: "y", Kind: table.Number}}
	rapid.Check(t, func(t *rapid.T) {
		cell := rapid.OneOf(
			rapid.StringMatching(`[+-]?[0-9]{0,17}\.?[0-9]{0,17}`), rapid.StringMatching(`[-+.0-9]{1,6}`), rapid.StringMatching(`-?[0-9]{1,3}\.?[0-9]{0,3}e[+-]?[0-9]{1,3}`),
			rapid.Map(rapid.Float64(), func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }),
		).Draw(t, "cell")
		b, broken, err := table.Parse(table.CSV, []byte(cell+",1\n"), fields, nil)
		if err != nil {
			t.Fatal(err)
		}
		want, failed := strconv.ParseFloat(cell, 64)
		switch {
		case cell == "" || cell == "NaN":
			if len(broken) > 0 || !math.IsNaN(b.Columns[0].Numbers[0]) {
				t.Fatalf("%q is not missing", cell)
			}
		case failed != nil || math.IsInf(want, 0):
			if len(broken) != 1 {
				t.Fatalf("%q is read as %v", cell, b.Columns[0].Numbers)
			}
		default:
			there++
			if len(broken) > 0 || math.Float64bits(b.Columns[0].Numbers[0]) != math.Float64bits(want) {
				t.Fatalf("%q is read as %v, %v, want %v", cell, b.Columns, broken, want)
			}
		}
	})
	if there == 0 {
		t.Error("no cell was a number")
	}
}

func TestWhatMeansMissingIsMissingAndNothingElse(t *testing.T) {
	m := table.NewMissing([]string{"?", "unbekannt", ""})
	for _, text := range []string{"", "NA", "N/A", "NaN", "nan", "null", "NULL", "?", "unbekannt"} {
		if !m.Has(text) {
			t.Errorf("%q is there", text)
		}
	}
	for _, text := range []string{"N", "NAN", "Null", "??", "unbekannte", "0", " ", "unbekannt "} {
		if m.Has(text) {
			t.Errorf("%q is missing", text)
		}
	}
}
