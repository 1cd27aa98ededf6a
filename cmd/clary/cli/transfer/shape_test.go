package transfer

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"

	"github.com/clary-ml/clary/trainer/spec"
)

func TestTheShapeOfANetworkIsReadFromTheData(t *testing.T) {
	for _, row := range []struct {
		name, text, label string
		header            bool
		input, classes    int
		names             string
		wrong             string
	}{
		{name: "numbers are classes", text: "1,2,0\n3,4,3\n", label: "last", input: 2, classes: 4},
		{name: "words are sorted", text: "cat,1\ndog,2\ncat,3\n", label: "first", input: 1, classes: 2, names: "cat dog"},
		{name: "a header", text: "x,kind,y\n1,a,2\n3,b,4\n", label: "kind", header: true, input: 2, classes: 2, names: "a b"},
		{name: "fractions are words", text: "1,0.5\n2,1\n", label: "last", input: 1, classes: 2, names: "0.5 1"},
		{name: "ragged", text: "1,2,3\n1,2\n", label: "last", wrong: "record on line 2"},
		{name: "nothing", text: "", label: "last", wrong: "no row"},
		{name: "a header alone", text: "x,y\n", label: "last", header: true, wrong: "no row"},
		{name: "no feature", text: "1\n2\n", label: "last", wrong: "no row of features"},
		{name: "no such column", text: "1,2\n", label: "kind", wrong: "kind"},
	} {
		for _, zipped := range []bool{false, true} {
			text := []byte(row.text)
			if zipped {
				var packed bytes.Buffer
				w := gzip.NewWriter(&packed)
				_, _ = w.Write(text)
				_ = w.Close()
				text = packed.Bytes()
			}
			shape, err := csvShape(bytes.NewReader(text), "data", spec.ColumnNamed(row.label), row.header)
			if row.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), row.wrong) {
					t.Errorf("%s: %v, want %q", row.name, err, row.wrong)
				}
				continue
			}
			if err != nil || shape.Input[0] != row.input || shape.Classes != row.classes || strings.Join(shape.Names, " ") != row.names {
				t.Errorf("%s: %+v, %v", row.name, shape, err)
			}
		}
	}
}
