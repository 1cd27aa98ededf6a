package data_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/data"
	"github.com/clary-ml/clary/trainer/spec"
)

func layout(width, classes int, d spec.Data) data.Layout {
	if d.Format == "" {
		d.Format = spec.FormatCSV
	}
	return data.Layout{Data: d, Width: width, ClassCount: classes}
}

func read(l data.Layout, text string) (string, error) {
	var rows []string
	err := data.ReadCSV(strings.NewReader(text), l, func(row int, f []float32, label float32) error {
		rows = append(rows, fmt.Sprint(row, f, label))
		return nil
	})
	return strings.Join(rows, "; "), err
}

func TestCSV(t *testing.T) {
	unlabelled := layout(2, 3, spec.Data{})
	unlabelled.Unlabelled = true
	for _, row := range []struct {
		name   string
		layout data.Layout
		text   string
		want   string
	}{
		{"plain", layout(2, 3, spec.Data{}), "1,2,0\n3,4,2\n", "0 [1 2] 0; 1 [3 4] 2"},
		{"label first", layout(2, 3, spec.Data{Label: spec.ColumnNamed("first")}), "0,1,2\n", "0 [1 2] 0"},
		{"label in the middle", layout(2, 3, spec.Data{Label: spec.ColumnNumber(1)}), "1,0,2", "0 [1 2] 0"},
		{"header", layout(2, 3, spec.Data{Header: true, Label: spec.ColumnNamed("y")}), "y,a,b\n1,5,6\n", "0 [5 6] 1"},
		{"byte order mark", layout(2, 3, spec.Data{Header: true, Label: spec.ColumnNamed("y")}), "\ufeffy,a,b\n1,5,6\n", "0 [5 6] 1"},
		{"quotes, blanks, carriage returns, empty lines", layout(2, 3, spec.Data{}), "\r\n \"1\" , 2.5e1 ,\"1\"\r\n\r\n", "0 [1 25] 1"},
		{"scale", layout(2, 3, spec.Data{Scale: 16}), "8,16,1", "0 [0.5 1] 1"},
		{"classes", layout(1, 2, spec.Data{Classes: []string{"no", "yes"}}), "7,yes\n7,no", "0 [7] 1; 1 [7] 0"},
		{"regression", layout(1, 0, spec.Data{}), "7,-1.5", "0 [7] -1.5"},
		{"unlabelled", unlabelled, "7,8\n", "0 [7 8] 0"},
	} {
		if got, err := read(row.layout, row.text); err != nil || got != row.want {
			t.Errorf("%s: %s, %v, want %s", row.name, got, err, row.want)
		}
	}
}

func TestRubbishCSVIsRefusedWithItsPlace(t *testing.T) {
	l := layout(2, 3, spec.Data{})
	for _, row := range []struct{ name, text, want string }{
		{"a word", "1,2,0\n1,x,0\n", `line 2, column 2: "x" is not a finite number`},
		{"nothing", "1,,0\n", "line 1, column 2: empty"},
		{"too few columns", "1,2,0\n1,2\n", "line 2 has 2 columns"},
		{"too many columns", "1,2,3,0\n", "line 1 has 4 columns"},
		{"very many columns", strings.Repeat("1,", 1000), "more than 4 columns"},
		{"not a number", "NaN,2,0\n", `line 1, column 1: "NaN"`},
		{"infinite", "1e99,2,0\n", `line 1, column 1: "1e99"`},
		{"a class too high", "1,2,3\n", "label 3: give a class number, 0 to 2"},
		{"half a class", "1,2,0.5\n", "label 0.5"},
		{"an open quote", "\"1,2,0\n", "a quote is not closed"},
		{"text after a quote", "\"1\"2,2,0\n", "text after the closing quote"},
		{"binary", "\x00\x01\x02\n", "line 1"},
		{"an endless line", strings.Repeat("1", 17<<20), "longer than"},
	} {
		got, err := read(l, row.text)
		if err == nil || !strings.Contains(err.Error(), row.want) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: read %q, %v, want %q", row.name, got, err, row.want)
		}
	}
	if _, err := read(layout(1, 2, spec.Data{Classes: []string{"a", "b"}}), "1,c"); err == nil || !strings.Contains(err.Error(), `"c" is not one of the classes`) {
		t.Errorf("unknown class: %v", err)
	}
	if _, err := read(layout(1, 2, spec.Data{Header: true, Label: spec.ColumnNamed("y")}), "a,b\n1,2"); err == nil || !strings.Contains(err.Error(), `"y" is not among`) {
		t.Errorf("unknown column: %v", err)
	}
}

func idx(kind byte, dims []int, values []byte) []byte {
	b := []byte{0, 0, kind, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, uint32(d))
	}
	return append(b, values...)
}

func zip(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func folder(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestIDXPairs(t *testing.T) {
	l := layout(4, 10, spec.Data{Format: spec.FormatIDX, Scale: 2})
	dir := folder(t, map[string][]byte{
		"t10k-images-idx3-ubyte.gz": zip(t, idx(8, []int{2, 2, 2}, []byte{1, 2, 3, 4, 5, 6, 7, 8})),
		"t10k-labels-idx1-ubyte":    idx(8, []int{2}, []byte{9, 0}),
		".hidden":                   []byte("x"), "_SUCCESS": nil,
	})
	table, err := data.ReadTable(t.Context(), dir, l)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(table); got != "{4 [0.5 1 1.5 2 2.5 3 3.5 4] [9 0]}" {
		t.Errorf("read %s", got)
	}
}

func TestRubbishIDXIsRefused(t *testing.T) {
	l := layout(4, 10, spec.Data{Format: spec.FormatIDX})
	images, labels := idx(8, []int{2, 2, 2}, make([]byte, 8)), idx(8, []int{2}, []byte{1, 2})
	nan := binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(math.NaN())))
	for name, pair := range map[string][2][]byte{
		"short images":    {images[:len(images)-1], labels},
		"short labels":    {images, labels[:len(labels)-1]},
		"long images":     {append(append([]byte(nil), images...), 1), labels},
		"wrong width":     {idx(8, []int{2, 3}, make([]byte, 6)), labels},
		"fewer labels":    {images, idx(8, []int{1}, []byte{1})},
		"label too high":  {images, idx(8, []int{2}, []byte{1, 10})},
		"text":            {[]byte("1,2,3,4\n"), labels},
		"huge dimensions": {idx(8, []int{1 << 31, 1 << 31, 1 << 31}, nil), labels},
		"no labels":       {images, images},
		"not a number":    {idx(13, []int{1, 4}, bytes.Repeat(nan, 4)), idx(8, []int{1}, []byte{1})},
		"broken gzip":     {zip(t, images)[:20], labels},
		"empty":           {nil, nil},
	} {
		dir := folder(t, map[string][]byte{"a": pair[0], "b": pair[1]})
		if _, err := data.ReadTable(t.Context(), dir, l); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFilesAreReadInOrderAndGzipIsSeenByItsContent(t *testing.T) {
	dir := folder(t, map[string][]byte{"b.csv": []byte("2,1\n"), "a.csv": zip(t, []byte("1,0\n")), "c": []byte("3,1\n")})
	table, err := data.ReadTable(t.Context(), dir, layout(1, 2, spec.Data{}))
	if err != nil || fmt.Sprint(table) != "{1 [1 2 3] [0 1 1]}" {
		t.Errorf("%v, %v", table, err)
	}
	bad := zip(t, []byte("1,0\n"))
	bad[len(bad)-5] ^= 1 // in the checksum
	if _, err := data.ReadTable(t.Context(), folder(t, map[string][]byte{"a": bad}), layout(1, 2, spec.Data{})); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a flipped byte: %v", err)
	}
	for name, dir := range map[string]string{"empty folder": t.TempDir(), "no folder": filepath.Join(t.TempDir(), "x")} {
		if _, err := data.ReadTable(t.Context(), dir, layout(1, 2, spec.Data{})); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every row is someone's, and no one's twice: validation or one worker's; and in an epoch
// each worker makes the same number of steps and visits each of its rows once.
func TestEveryRowIsSeenOnceAnEpoch(t *testing.T) {
	seen, held := 0, 0
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		rows, workers, batch := rapid.IntRange(1, 200).Draw(t, "rows"), rapid.IntRange(1, 7).Draw(t, "workers"), rapid.IntRange(1, 50).Draw(t, "batch")
		split := data.Split{Seed: rapid.Int64().Draw(t, "seed"), Fraction: rapid.SampledFrom([]float64{0, 0.3}).Draw(t, "fraction"), Workers: workers}
		var text strings.Builder
		for i := range rows {
			fmt.Fprintf(&text, "%d,0\n", i)
		}
		path := filepath.Join(dir, "rows.csv")
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		times, total := make([]int, rows), 0
		for w := range workers {
			split.Worker, split.KeepValidation = w, w == 0
			s, err := data.ReadShard(context.Background(), path, layout(1, 2, spec.Data{}), split)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range s.Validation.Features {
				times[int(v)]++
				held++
			}
			r := data.NewRounds(s.TrainRows, batch, workers)
			if r.RowsOf(w) != s.Train.Rows() {
				t.Fatalf("worker %d has %d rows, planned %d", w, s.Train.Rows(), r.RowsOf(w))
			}
			order := data.Order(s.Train.Rows(), split.Seed, w, 3)
			for step := range r.Steps() {
				from, to := r.Part(w, step)
				if to-from > r.BatchOf(w) {
					t.Fatalf("worker %d takes %d rows in a batch of %d", w, to-from, r.BatchOf(w))
				}
				for _, i := range order[from:to] {
					times[int(s.Train.Row(i)[0])]++
					seen++
				}
				if w == 0 {
					total += r.Total(step)
				}
			}
		}
		for row, n := range times {
			if n != 1 {
				t.Fatalf("row %d was seen %d times", row, n)
			}
		}
	})
	if seen < 100 || held < 10 {
		t.Errorf("only %d rows were seen and %d held out", seen, held)
	}
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte("1,2,0\n\"3\",4e3,1\r\n"))
	f.Add([]byte("a,b,c\n,,\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		err := data.ReadCSV(bytes.NewReader(text), layout(2, 2, spec.Data{Scale: 3}), func(_ int, features []float32, label float32) error {
			if label != 0 && label != 1 {
				t.Errorf("label %v", label)
			}
			for _, v := range features {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Errorf("feature %v", v)
				}
			}
			return nil
		})
		if err != nil && !strings.Contains(err.Error(), "line ") {
			t.Errorf("no line in %v", err)
		}
	})
}

func FuzzIDX(f *testing.F) {
	f.Add(idx(8, []int{2, 2, 2}, make([]byte, 8)), idx(8, []int{2}, []byte{1, 0}))
	f.Add(idx(13, []int{1, 4}, make([]byte, 16)), idx(8, []int{1}, []byte{1}))
	f.Fuzz(func(t *testing.T, features, labels []byte) {
		rows := 0
		err := data.ReadIDX(bytes.NewReader(features), bytes.NewReader(labels), layout(4, 2, spec.Data{Format: spec.FormatIDX}), func(int, []float32, float32) error {
			rows++
			return nil
		})
		if err == nil && 4*rows+12 > len(features) && rows > 0 {
			t.Errorf("%d rows of %d bytes", rows, len(features))
		}
	})
}
