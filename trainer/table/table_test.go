package table_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/table"
)

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// read returns all rows as text, cells between bars, with numbers as %v.
func read(ctx context.Context, path string, o table.Options) (rows []string, kinds []table.Kind, count table.Count, err error) {
	s, err := table.Open(path, o)
	if err != nil {
		return nil, nil, count, err
	}
	if _, err := s.Infer(ctx); err != nil {
		return nil, nil, count, err
	}
	for _, f := range s.Fields {
		kinds = append(kinds, f.Kind)
	}
	count, err = s.Each(ctx, func(b table.Batch) error {
		for row := range b.Rows {
			var cells []string
			for i := range b.Columns {
				switch c := &b.Columns[i]; {
				case c.Missing(row):
					cells = append(cells, "?")
				case c.Kind == table.Number:
					cells = append(cells, fmt.Sprint(c.Numbers[row]))
				default:
					cells = append(cells, c.Texts[row])
				}
			}
			rows = append(rows, strings.Join(cells, "|"))
		}
		return nil
	})
	return rows, kinds, count, err
}

func TestReadsWhatPeopleHave(t *testing.T) {
	const n, x = table.Number, table.Text
	for _, test := range []struct {
		claim, name, text string
		o                 table.Options
		rows              []string
		kinds             []table.Kind
	}{
		{"plain", "a.csv", "a,b\n1,x\n2.5,y\n", table.Options{}, []string{"1|x", "2.5|y"}, []table.Kind{n, x}},
		{"without a last newline, with carriage returns and blank lines", "a.csv", "a,b\r\n\r\n1,x\r\n  \n2,y", table.Options{}, []string{"1|x", "2|y"}, []table.Kind{n, x}},
		{"a byte order mark", "a.csv", "\xef\xbb\xbfa,b\n1,2\n", table.Options{}, []string{"1|2"}, []table.Kind{n, n}},
		{"quotes, with what needs them", "a.csv", "\"a,1\",b\n\"x,\"\"y\"\"\nz\" , 3\n", table.Options{}, []string{"x,\"y\"\nz|3"}, []table.Kind{x, n}},
		{"a quote inside a cell is a character", "a.csv", "a,b\n5\" tall,1\n", table.Options{}, []string{`5" tall|1`}, []table.Kind{x, n}},
		{"blanks are missing", "a.csv", "a,b\n ,x\n7,\n", table.Options{}, []string{"?|x", "7|?"}, []table.Kind{n, x}},
		{"what means missing", "a.csv", "a,b\nNA,x\n?,NaN\n3,null\n", table.Options{Missing: []string{"?"}}, []string{"?|x", "?|?", "3|?"}, []table.Kind{n, x}},
		{"a column of nothing", "a.csv", "a,b\n,1\n", table.Options{}, []string{"?|1"}, []table.Kind{x, n}},
		{"words that Go takes for numbers", "a.csv", "a,b,c,d\n0x1p4,1_000,Inf,infinity\n", table.Options{}, []string{"0x1p4|1_000|Inf|infinity"}, []table.Kind{x, x, x, x}},
		{"numbers of all forms", "a.csv", "a\n-1e3\n+.5\n3.\n1e-400\n", table.Options{}, []string{"-1000", "0.5", "3", "0"}, []table.Kind{n}},
		{"tabs", "a.tsv", "a\tb\n1,5\tx y\n", table.Options{}, []string{"1,5|x y"}, []table.Kind{x, x}},
		{"no header", "a.csv", "1,2\n", table.Options{Columns: []string{"a", "b"}}, []string{"1|2"}, []table.Kind{n, n}},
		{"only a header", "a.csv", "a,b\n", table.Options{}, nil, []table.Kind{x, x}},
		{
			"objects", "a.jsonl", `{"a": 1, "b": "x"}` + "\n\n" + `{"b": null, "c": [1, {"d": 2}], "a": 2e1}` + "\n" + `{"c": true}`,
			table.Options{},
			[]string{"1|x|?", "20|?|[1, {\"d\": 2}]", "?|?|true"},
			[]table.Kind{n, x, x},
		},
	} {
		t.Run(test.claim, func(t *testing.T) {
			rows, kinds, count, err := read(t.Context(), write(t, test.name, test.text), test.o)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(rows, test.rows) || !reflect.DeepEqual(kinds, test.kinds) || count.Rows != int64(len(rows)) {
				t.Errorf("got %q, %v, %+v\nwant %q, %v", rows, kinds, count, test.rows, test.kinds)
			}
		})
	}
}

func TestBrokenRowsAreNamedAndTheRestIsRead(t *testing.T) {
	for _, test := range []struct {
		claim, name, text string
		want              string
		kept              []string
	}{
		{"too few cells", "a.csv", "a,b\n1,2\n3\n4,5\n", "line 3: 1 columns where the header has 2", []string{"1|2", "4|5"}},
		{"too many cells", "a.csv", "a,b\n1,2,3\n4,5\n", "line 2: 3 columns where the header has 2", []string{"4|5"}},
		{"a quote that is never closed", "a.csv", "a,b\n\"1,2\n4,5\n", "line 2: column 1: a quote is not closed", []string{"4|5"}},
		{"a quote that is not closed, behind a line in quotes", "a.csv", "a,b\n\"x\ny\",\"z\n4,5\n", "line 2: column 2: a quote is not closed", []string{"4|5"}},
		{"text behind a quote", "a.csv", "a,b\n\"1\"x,2\n4,5\n", `line 2: column 1: "x,2" stands behind the closing quote`, []string{"4|5"}},
		{"lines are counted through quotes", "a.csv", "a,b\n\"x\n\n\",1\n4\n", "line 5: 1 columns", []string{"x\n\n|1"}},
		{"no JSON", "a.jsonl", "{\"a\": 1}\n{\"a\": }\n{\"a\": 2}\n", "line 2: is not JSON", []string{"1", "2"}},
		{"half an object", "a.jsonl", "{\"a\": 1}\n{\"a\": 3\n", "line 2: the JSON ends too early", []string{"1"}},
		{"a list", "a.jsonl", "{\"a\": 1}\n[1]\n", "line 2: is not a JSON object", []string{"1"}},
		{"two objects in a line", "a.jsonl", "{\"a\": 1}\n{\"a\": 2} {\"a\": 3}\n", "line 2: something stands behind", []string{"1"}},
		{"a name twice", "a.jsonl", "{\"a\": 1}\n{\"a\": 2, \"a\": 3}\n", "line 2: is not JSON", []string{"1"}},
	} {
		t.Run(test.claim, func(t *testing.T) {
			path := write(t, test.name, test.text)
			if _, _, _, err := read(t.Context(), path, table.Options{}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), path+": "+test.want) {
				t.Errorf("strict: %v", err)
			}
			rows, _, count, err := read(t.Context(), path, table.Options{OnBroken: table.Skip})
			if err != nil || count.Broken != 1 || !reflect.DeepEqual(rows, test.kept) {
				t.Errorf("skip: %q, %+v, %v", rows, count, err)
			}
			var aside []table.Broken
			o := table.Options{OnBroken: table.Quarantine, Quarantine: func(b table.Broken) error { aside = append(aside, b); return nil }}
			if _, _, _, err := read(t.Context(), path, o); err != nil || len(aside) != 2 { // once by Infer
				t.Errorf("quarantine: %+v, %v", aside, err)
			}
		})
	}
}

func TestANumberThatIsNoneLeavesNoTrace(t *testing.T) {
	s, err := table.Open(write(t, "a.csv", "a,b,c\n1,2,x\n3,four,y\n5,6,z\n"), table.Options{OnBroken: table.Skip})
	if err != nil {
		t.Fatal(err)
	}
	s.Fields[0].Kind, s.Fields[1].Kind = table.Number, table.Number
	var got table.Batch
	count, err := s.Each(t.Context(), func(b table.Batch) error { got = b; return nil })
	if err != nil || count != (table.Count{Rows: 2, Broken: 1}) || got.Rows != 2 {
		t.Fatalf("%+v, %v, %+v", count, err, got)
	}
	if !reflect.DeepEqual(got.Columns[0].Numbers, []float64{1, 5}) || !reflect.DeepEqual(got.Columns[2].Texts, []string{"x", "z"}) {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsNoTableIsRefused(t *testing.T) {
	for text, want := range map[string][2]string{
		"a,,c\n":             {"a.csv", "column 2 has no name"},
		"a,b,a\n":            {"a.csv", `two columns are named "a"`},
		"":                   {"a.csv", "is empty"},
		"no object":          {"a.jsonl", "no JSON object"},
		"PAR1 or not":        {"a.parquet", "is not a Parquet file"},
		"a\n1\n":             {"a.xml", "its name does not tell"},
		"\x1f\x8b rubbish\n": {"a.csv.gz", "gzip"},
	} {
		if _, err := table.Open(write(t, want[0], text), table.Options{}); err == nil || !strings.Contains(err.Error(), want[1]) {
			t.Errorf("%q: %v", text, err)
		}
	}
	path := write(t, "a.csv", "a\n1\n")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "b.csv"), []byte("b\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Open(filepath.Dir(path), table.Options{}); err == nil || !strings.Contains(err.Error(), "all files of a channel need the same") {
		t.Error(err)
	}
	if _, err := table.Open(path, table.Options{OnBroken: "ignore"}); err == nil || !strings.Contains(err.Error(), "strict, skip or quarantine") {
		t.Error(err)
	}
}

// big is a file of several blocks, whose cells and lines cross their borders.
func big(t testing.TB, format string, rows int) string {
	t.Helper()
	var text strings.Builder
	if format == table.CSV {
		text.WriteString("number,word,quoted\n")
	}
	for i := range rows {
		switch format {
		case table.CSV:
			fmt.Fprintf(&text, "%d.25,word%d,\"line %d\n\"\"and\"\" more, of it\"\n", i, i%7, i)
		default:
			fmt.Fprintf(&text, "{\"number\": %d.25, \"word\": \"word%d\", \"quoted\": \"line %d\\nmore\"}\n", i, i%7, i)
		}
	}
	return write(t, "big."+format, text.String())
}

func TestRowsKeepTheirOrderOverBlocksAndFiles(t *testing.T) {
	for _, format := range []string{table.CSV, table.JSONL} {
		const rows = 60_000
		path := big(t, format, rows)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		zipped, err := os.Create(filepath.Join(filepath.Dir(path), "big2."+format+".gz"))
		if err != nil {
			t.Fatal(err)
		}
		w := gzip.NewWriter(zipped)
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Close(), zipped.Close()); err != nil {
			t.Fatal(err)
		}
		s, err := table.Open(filepath.Dir(path), table.Options{Workers: 4, Format: format})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Infer(t.Context()); err != nil {
			t.Fatal(err)
		}
		at, batches := 0, 0
		count, err := s.Each(t.Context(), func(b table.Batch) error {
			batches++
			for row := range b.Rows {
				if got, want := b.Columns[0].Numbers[row], float64(at%rows)+0.25; got != want {
					return fmt.Errorf("row %d is %v", at, got)
				}
				at++
			}
			return nil
		})
		if err != nil || count.Rows != 2*rows || batches < 4 {
			t.Errorf("%s: %+v in %d batches, %v", format, count, batches, err)
		}
	}
}

func TestAReadingThatIsEndedEnds(t *testing.T) {
	path := big(t, table.CSV, 60_000)
	s, err := table.Open(path, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if _, err := s.Each(t.Context(), func(table.Batch) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Each(ctx, func(table.Batch) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// What is written is read again as it was, in every format.
func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	missing, cells := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var fields []table.Field
		for i := range rapid.IntRange(1, 4).Draw(t, "columns") {
			kind := rapid.SampledFrom([]table.Kind{table.Text, table.Number}).Draw(t, "kind")
			fields = append(fields, table.Field{Name: fmt.Sprintf("c%d", i), Kind: kind})
		}
		b := table.NewBatch(fields, 0)
		b.Rows = rapid.IntRange(1, 5).Draw(t, "rows")
		for i := range b.Columns {
			c := &b.Columns[i]
			for row := range b.Rows {
				gone := rapid.Bool().Draw(t, "missing") && row > 0 // a column of nothing has no kind
				if cells++; gone {
					missing++
				}
				if c.Kind == table.Number {
					v := math.NaN()
					if !gone {
						v = rapid.Float64Range(-1e300, 1e300).Draw(t, "number")
					}
					c.Numbers = append(c.Numbers, v)
					continue
				}
				text := ""
				if !gone { // a letter first, so that it is no number, and nothing that means missing
					text = "x" + rapid.StringMatching(`[a-z ,"\n'é|]{0,12}[a-z]`).Draw(t, "text")
				}
				c.Texts = append(c.Texts, text)
			}
		}
		format := rapid.SampledFrom([]string{table.CSV, table.JSONL, table.Parquet}).Draw(t, "format")
		name := filepath.Join(dir, "t."+format)
		w, err := table.Create(name, fields)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Write(b, w.Text(b)), w.Close()); err != nil {
			t.Fatal(err)
		}
		s, err := table.Open(name, table.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Infer(context.Background()); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s.Fields, fields) {
			t.Fatalf("%s: fields %v, want %v", format, s.Fields, fields)
		}
		if _, err := s.Each(context.Background(), func(got table.Batch) error {
			for i, c := range got.Columns {
				for row := range b.Rows {
					want := b.Columns[i]
					same := c.Missing(row) == want.Missing(row)
					if same && !c.Missing(row) && c.Kind == table.Number {
						same = c.Numbers[row] == want.Numbers[row]
					} else if same && c.Kind == table.Text {
						same = c.Texts[row] == want.Texts[row]
					}
					if !same {
						t.Fatalf("%s: row %d of %+v, want %+v", format, row, c, want)
					}
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
	if missing == 0 || missing == cells {
		t.Errorf("%d of %d cells were missing", missing, cells)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("a,b\n1,\"x\ny\"\n", true)
	f.Add("{\"a\": 1}\n{\"a\": [}\n", false)
	f.Fuzz(func(t *testing.T, text string, csv bool) {
		name := "a.jsonl"
		if csv {
			name = "a.csv"
		}
		path := write(t, name, text)
		_, _, _, strict := read(t.Context(), path, table.Options{})
		_, _, count, err := read(t.Context(), path, table.Options{OnBroken: table.Skip})
		if (strict == nil) != (err == nil && count.Broken == 0) {
			t.Errorf("strict says %v, skipping %v and %d broken", strict, err, count.Broken)
		}
		if strict != nil && fault.KindOf(strict) == fault.Internal {
			t.Errorf("rubbish is taken for a defect: %v", strict)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for _, format := range []string{table.CSV, table.JSONL} {
		b.Run(format, func(b *testing.B) {
			path := big(b, format, 100_000)
			info, err := os.Stat(path)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(info.Size())
			for b.Loop() {
				s, err := table.Open(path, table.Options{})
				if err != nil {
					b.Fatal(err)
				}
				s.Fields[0].Kind = table.Number
				if _, err := s.Each(b.Context(), func(table.Batch) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
