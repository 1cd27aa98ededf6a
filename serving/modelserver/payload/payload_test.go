package payload_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/payload"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

var (
	matrix  = payload.Decoder{Inputs: []tensor.Port{{Name: "input", Type: tensor.Float32, Shape: []int64{-1, 2}}}}
	open    = payload.Decoder{Inputs: []tensor.Port{{Name: "x", Type: tensor.Int64, Shape: []int64{-1, -1}}}}
	columns = payload.Decoder{
		Inputs: []tensor.Port{
			{Name: "age", Type: tensor.Float64, Shape: []int64{-1}}, {Name: "city", Type: tensor.Bytes, Shape: []int64{-1}},
		},
		Missing: func(text string) bool { return text == "" || text == "?" },
	}
)

func show(tensors []tensor.Tensor) string {
	var parts []string
	for _, t := range tensors {
		parts = append(parts, fmt.Sprintf("%s%v=%q", t.Name, t.Shape, fmt.Sprint(t.Data)))
	}
	return strings.Join(parts, " ")
}

func TestTheSameRowsInEveryForm(t *testing.T) {
	for _, c := range []struct {
		name    string
		decoder payload.Decoder
		want    string
		csv     []string
		json    []string
		lines   []string
	}{
		{
			"numbers", matrix, `input[2 2]="[1 2.5 -3 40]"`,
			[]string{"1,2.5\n-3,4e1", "\ufeff 1 , 2.5\r\n\r\n\"-3\",40\r\n"},
			[]string{
				`[[1,2.5],[-3,40]]`, `{"instances":[[1,2.5],[-3,40]]}`, `{"signature_name":"x","instances":[{"input":[1,2.5]},{"features":[[-3],[40]]}]}`,
				` {"inputs": [["1","2.5"],[-3,4e1]]} `,
			},
			[]string{"[1,2.5]\n[-3,40]", "{\"features\":[1,2.5]}\n\n{\"input\":[-3,40]}\n"},
		},
		{
			"one row", matrix, `input[1 2]="[1 2]"`,
			[]string{"1,2"},
			[]string{`[1,2]`, `{"input":[1,2]}`, `[[1,2]]`},
			[]string{"[1,2]"},
		},
		{
			"columns", columns, `age[2]="[30 NaN]" city[2]="[Rome, Lazio ]"`,
			[]string{"30,\"Rome, Lazio\"\n,?\n", "city,age\n\"Rome, Lazio\",30\n,\n", "age,city\n30,\"Rome, Lazio\"\n?,?\n"},
			[]string{`[{"age":30,"city":"Rome, Lazio"},{}]`, `{"instances":[["30","Rome, Lazio"],[null,"?"]]}`},
			[]string{"{\"age\":30,\"city\":\"Rome, Lazio\"}\n{\"city\":null}\n", "[30,\"Rome, Lazio\"]\n[null,null]"},
		},
		{
			"one row of columns", columns, `age[1]="[30]" city[1]="[7]"`,
			[]string{"30,7"},
			[]string{`{"age":30,"city":"7"}`, `[30,7]`, `[[30,7]]`, `{"city":7,"age":30}`},
			[]string{"[30,7]"},
		},
		{
			"an open width", open, `x[2 3]="[1 2 3 4 5 6]"`,
			[]string{"1,2,3\n4,5,6"},
			[]string{`[[1,2,3],[4,5,6.0]]`},
			[]string{"[1,2,3]\n[4,5,6]"},
		},
	} {
		for format, bodies := range map[payload.Format][]string{payload.CSV: c.csv, payload.JSON: c.json, payload.JSONLines: c.lines} {
			for _, body := range bodies {
				got, rows, err := c.decoder.Decode(format, []byte(body))
				if err != nil || show(got) != c.want || rows != got[0].Rows() {
					t.Errorf("%s as %s: %q gives %s, %v; want %s", c.name, format, body, show(got), err, c.want)
				}
			}
		}
	}
}

func TestRubbishIsNamedByItsPlace(t *testing.T) {
	for _, c := range []struct {
		decoder payload.Decoder
		format  payload.Format
		body    string
		says    string
	}{
		{matrix, payload.CSV, "", "no rows"},
		{matrix, payload.CSV, "\n \n", "no rows"},
		{matrix, payload.CSV, "1,2\n3\n", "line 2: \"input\" has 1 values: a row of it has 2"},
		{matrix, payload.CSV, "1,2,3\n", "line 1: \"input\" has 3 values"},
		{matrix, payload.CSV, "1,2\n\n1,nan\n", "line 3: \"input\": \"nan\" is not a finite number"},
		{matrix, payload.CSV, "1,1e99\n", "\"1e99\" is not a finite number"},
		{matrix, payload.CSV, "1,\n", "is empty"},
		{matrix, payload.CSV, "1,\"2", "line 1: column 2: a quote is not closed"},
		{matrix, payload.CSV, "\"1\"x,2", "line 1: column 1: text after the closing quote"},
		{columns, payload.CSV, "1,Rome\n\"2\n", "line 2: column 1: a quote is not closed"},
		{columns, payload.CSV, "1\n", "line 1: 1 columns: the model takes 2"},
		{columns, payload.CSV, "age,town\n1,x", "line 1: \"age\": \"age\" is not a finite number"},
		{matrix, payload.JSON, "", "JSON ends too early"},
		{matrix, payload.JSON, "[[1,2]", "JSON ends too early"},
		{matrix, payload.JSON, "[[1,2]] 7", "something stands behind"},
		{matrix, payload.JSON, "[[1,2],[3,{}]]", "row 2: \"input\" is an object"},
		{matrix, payload.JSON, "[[1,2],[3,null]]", "row 2: \"input\" is empty"},
		{matrix, payload.JSON, "{\"rows\":[[1,2]]}", "\"rows\" is none of the model's inputs"},
		{matrix, payload.JSON, "{\"instances\":7}", "is no list"},
		{matrix, payload.JSON, "{\"instances\":[]}", "no rows"},
		{matrix, payload.JSON, "{\"instances\":[[1,2]]", "JSON ends too early"},
		{matrix, payload.JSON, "nonsense", "is not JSON"},
		{matrix, payload.JSON, "[[1,2],[[[[[3]]]]]]", "row 2: \"input\" has 1 values"},
		{matrix, payload.JSON, `{"input":[1,2],"input":[1,2]}`, "is not JSON"},
		{columns, payload.JSON, "[[1,\"a\",2]]", "row 1: has more than 2 cells"},
		{columns, payload.JSON, "[[1]]", "row 1: has 1 cells: a row has 2"},
		{columns, payload.JSON, "[[1,\"a\"],7]", "row 2: is no row"},
		{columns, payload.JSON, "[{\"age\":[1,2]}]", "\"age\" has 2 values"},
		{columns, payload.JSONLines, "{}\n{\"age\":\n", "line 2: the JSON ends too early"},
		{columns, payload.JSONLines, "{} {}\n", "line 1: something stands behind"},
		{open, payload.CSV, "1,2\n3\n", "line 2: \"x\" has 1 values: a row of it has 2"},
		{open, payload.CSV, "1.5\n", "is not a whole number"},
		{open, payload.CSV, "1e17\n", "out of the range of INT64"},
	} {
		_, _, err := c.decoder.Decode(c.format, []byte(c.body))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %q: %v; want %q", c.format, c.body, err, c.says)
		}
	}
}

func TestOutputsInEveryForm(t *testing.T) {
	outputs := []tensor.Tensor{
		{Name: "label", Type: tensor.Bytes, Shape: []int64{2}, Data: []string{"a \"b\", c", "d\xff"}},
		{Name: "p", Type: tensor.Float32, Shape: []int64{2, 2}, Data: []float32{0.1, float32(math.Inf(1)), 1e-9, 2}},
		{Name: "n", Type: tensor.Int8, Shape: []int64{2, 1}, Data: []int8{-1, 2}},
	}
	for format, want := range map[payload.Format]string{
		payload.CSV:       "\"a \"\"b\"\", c\",0.1,+Inf,-1\nd\xff,1e-09,2,2\n",
		payload.JSONLines: `{"label":"a \"b\", c","p":[0.1,null],"n":[-1]}` + "\n" + `{"label":"d` + "\ufffd" + `","p":[1e-09,2],"n":[2]}` + "\n",
		payload.JSON:      `{"predictions":[{"label":"a \"b\", c","p":[0.1,null],"n":[-1]},{"label":"d` + "\ufffd" + `","p":[1e-09,2],"n":[2]}]}` + "\n",
	} {
		if got := string(payload.Encode(nil, format, outputs)); got != want {
			t.Errorf("%s:\n%swant\n%s", format, got, want)
		}
	}
}

func TestFormatsByTheirHeaders(t *testing.T) {
	for _, c := range []struct {
		header, body string
		want         payload.Format
	}{
		{"text/csv", "", payload.CSV},
		{"text/csv; charset=utf-8; header=present", "", payload.CSV},
		{"Application/JSON", "", payload.JSON},
		{"application/x-ndjson", "", payload.JSONLines},
		{"", " [1]", payload.JSON},
		{"", "1,2", payload.CSV},
		{"application/x-www-form-urlencoded", "1,2", ""},
		{";;", "1,2", ""},
	} {
		if got, err := payload.ContentFormat(c.header, []byte(c.body)); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("Content-Type %q: %q, %v", c.header, got, err)
		}
	}
	for _, c := range []struct {
		accept string
		want   payload.Format
	}{
		{"", payload.CSV},
		{"*/*", payload.CSV},
		{"application/json", payload.JSON},
		{"image/png, application/jsonlines;q=0.9", payload.JSONLines},
		{"text/html, */*;q=0.1", payload.CSV},
		{"image/png", ""},
	} {
		if got, err := payload.AcceptFormat(c.accept, payload.CSV); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("Accept %q: %q, %v", c.accept, got, err)
		}
	}
}

// Numbers come back from every form as they were.
func TestNumbersComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float32(), 2, 2).Draw(t, "values")
		out := []tensor.Tensor{{Name: "input", Type: tensor.Float32, Shape: []int64{1, 2}, Data: values}}
		for _, format := range []payload.Format{payload.CSV, payload.JSONLines} {
			text := payload.Encode(nil, format, out)
			got, _, err := matrix.Decode(format, text)
			if err != nil || fmt.Sprint(got[0].Data) != fmt.Sprint(values) {
				t.Fatalf("%v as %s is %q and comes back as %v, %v", values, format, text, got, err)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add("1,2\n", 0)
	f.Add(`{"instances":[[1,2]]}`, 1)
	f.Add("{\"age\":1}\n[1,\"a\"]", 2)
	formats := []payload.Format{payload.CSV, payload.JSON, payload.JSONLines}
	f.Fuzz(func(t *testing.T, body string, form int) {
		for _, d := range []payload.Decoder{matrix, open, columns} {
			tensors, rows, err := d.Decode(formats[max(form, 0)%3], []byte(body))
			if err != nil {
				if !fault.Is(err, fault.Invalid) {
					t.Fatalf("rubbish is taken for a defect: %v", err)
				}
				continue
			}
			ordered, matched, err := tensor.Match(d.Inputs, tensors)
			if err != nil || matched != rows {
				t.Fatalf("%d rows that do not fit: %v", rows, err)
			}
			for _, one := range ordered {
				if err := one.Check(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
