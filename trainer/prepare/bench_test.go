package prepare_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/clary-ml/clary/trainer/prepare"
)

// BenchmarkPrepare is a plan of every step that learns, over 40 columns of numbers and texts.
func BenchmarkPrepare(b *testing.B) {
	var text strings.Builder
	for i := range 40 {
		fmt.Fprintf(&text, "c%d,", i)
	}
	text.WriteString("label\n")
	for row := range 40_000 {
		for i := range 40 {
			switch {
			case i%4 == 0:
				fmt.Fprintf(&text, "value %d,", (row*7+i)%5)
			case (row+i)%50 == 0:
				text.WriteString(",")
			default:
				fmt.Fprintf(&text, "%.3f,", float64((row*(i+3))%9973)/7)
			}
		}
		fmt.Fprintf(&text, "%d\n", row%3)
	}
	input := map[string]string{"input": file(b, "b.csv", text.String())}
	p := plan(b, `{"label": "label", "steps": [{"clean": {"outliers": "iqr"}}, {"split": {"test": 0.2, "stratify": "label"}}, {"scale": {}}, {"one_hot": {}}]}`)
	b.SetBytes(int64(text.Len()))
	out, err := os.MkdirTemp(b.TempDir(), "")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := (prepare.Run{Plan: p, Inputs: input, Output: out}).Do(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
