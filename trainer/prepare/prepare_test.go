package prepare_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/trainer/table"
)

func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func plan(t testing.TB, text string) steps.Plan {
	t.Helper()
	var p steps.Plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func do(t testing.TB, p steps.Plan, inputs map[string]string) (out string, report prepare.Report, err error) {
	t.Helper()
	out = t.TempDir()
	report, err = prepare.Run{Plan: p, Inputs: inputs, Output: out, Workers: 3}.Do(context.Background())
	return out, report, err
}

func text(t testing.TB, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const people = "id,age,city,bought\n1,20,Rome,no\n2,,Oslo,yes\n3,40,,no\n4,60,Rome,yes\n4,60,Rome,yes\n"

func TestEachStepDoesWhatItSays(t *testing.T) {
	for _, test := range []struct{ claim, steps, want string }{
		{"drop", `{"drop": {"columns": ["id", "city"]}}`, "age,bought\n20,no\n,yes\n40,no\n60,yes\n60,yes\n"},
		{"duplicates", `{"clean": {"duplicates": true, "missing": "keep"}}`, "id,age,city,bought\n1,20,Rome,no\n2,,Oslo,yes\n3,40,,no\n4,60,Rome,yes\n"},
		{"median and commonest", `{"clean": {}}`, "id,age,city,bought\n1,20,Rome,no\n2,50,Oslo,yes\n3,40,Rome,no\n4,60,Rome,yes\n4,60,Rome,yes\n"},
		{"mean of one column", `{"clean": {"columns": ["age"], "missing": "mean"}}`, "id,age,city,bought\n1,20,Rome,no\n2,45,Oslo,yes\n3,40,,no\n4,60,Rome,yes\n4,60,Rome,yes\n"},
		{"zero", `{"clean": {"missing": "zero"}}`, "id,age,city,bought\n1,20,Rome,no\n2,0,Oslo,yes\n3,40,missing,no\n4,60,Rome,yes\n4,60,Rome,yes\n"},
		{"dropped rows", `{"clean": {"missing": "drop"}}`, "id,age,city,bought\n1,20,Rome,no\n4,60,Rome,yes\n4,60,Rome,yes\n"},
		{"outliers clipped", `{"clean": {"columns": ["id"], "outliers": "deviation", "limit": 1}}`, "id,age,city,bought\n1.496159519,20,Rome,no\n2,,Oslo,yes\n3,40,,no\n4,60,Rome,yes\n4,60,Rome,yes\n"},
		{"outliers dropped", `{"clean": {"columns": ["age"], "outliers": "iqr", "limit": 0.1, "then": "drop", "missing": "keep"}}`, "id,age,city,bought\n2,,Oslo,yes\n3,40,,no\n4,60,Rome,yes\n4,60,Rome,yes\n"},
		{"to a range", `{"scale": {"columns": ["age"]}}`, "id,age,city,bought\n1,-1,Rome,no\n2,,Oslo,yes\n3,0,,no\n4,1,Rome,yes\n4,1,Rome,yes\n"},
		{"to another range", `{"scale": {"columns": ["age"], "to": [0, 10]}}`, "id,age,city,bought\n1,0,Rome,no\n2,,Oslo,yes\n3,5,,no\n4,10,Rome,yes\n4,10,Rome,yes\n"},
		{"one of many", `{"drop": {"columns": ["id", "age"]}}, {"one_hot": {}}`, "city=Oslo,city=Rome,bought\n0,1,no\n1,0,yes\n0,0,no\n0,1,yes\n0,1,yes\n"},
	} {
		t.Run(test.claim, func(t *testing.T) {
			out, report, err := do(t, plan(t, `{"label": "bought", "steps": [`+test.steps+`]}`), map[string]string{"input": file(t, "p.csv", people)})
			if err != nil {
				t.Fatal(err)
			}
			got := text(t, out, "train", "train.csv")
			if !closeTo(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
			if report.Rows != 5 || report.Parts["train"]+report.Left != 5 {
				t.Errorf("%+v", report)
			}
		})
	}
}

// closeTo compares texts cell by cell, numbers to six digits.
func closeTo(got, want string) bool {
	a, b := strings.FieldsFunc(got, func(r rune) bool { return r == ',' || r == '\n' }), strings.FieldsFunc(want, func(r rune) bool { return r == ',' || r == '\n' })
	return slices.EqualFunc(a, b, func(x, y string) bool {
		var u, v float64
		if _, err := fmt.Sscan(x, &u); err != nil || x == y {
			return x == y
		}
		_, err := fmt.Sscan(y, &v)
		return err == nil && math.Abs(u-v) < 1e-6*math.Max(1, math.Abs(v))
	})
}

func TestJoinAddsColumnsByAKey(t *testing.T) {
	inputs := map[string]string{"input": file(t, "p.csv", people), "places": file(t, "q.csv", "city,country,height\nRome,Italy,21\nOslo,Norway,\n")}
	out, report, err := do(t, plan(t, `{"label": "bought", "steps": [{"join": {"with": "places", "on": "city"}}, {"drop": {"columns": ["id", "age"]}}]}`), inputs)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(t, out, "train", "train.csv"), "city,country,height,bought\nRome,Italy,21,no\nOslo,Norway,,yes\nRome,Italy,21,yes\nRome,Italy,21,yes\n"; got != want || report.Left != 1 {
		t.Errorf("got\n%s\n%+v", got, report)
	}
	out, _, err = do(t, plan(t, `{"steps": [{"join": {"with": "places", "on": "city", "keep": true}}, {"drop": {"columns": ["id", "age", "height", "bought"]}}]}`), inputs)
	if got, want := text(t, out, "train", "train.csv"), "city,country\nRome,Italy\nOslo,Norway\n,\nRome,Italy\nRome,Italy\n"; got != want || err != nil {
		t.Errorf("got\n%s\n%v", got, err)
	}
}

func TestComponentsAreThoseOfTheCovariance(t *testing.T) {
	// Points near a line through (1, 2) along (3, 4), a little to its sides.
	var b strings.Builder
	b.WriteString("x,y\n")
	for i := range 1000 {
		along, aside := float64(i%101-50)/5, float64(i%7-3)/100
		fmt.Fprintf(&b, "%v,%v\n", 1+0.6*along-0.8*aside, 2+0.8*along+0.6*aside)
	}
	out, _, err := do(t, plan(t, `{"steps": [{"pca": {"share": 0.99}}]}`), map[string]string{"input": file(t, "p.csv", b.String())})
	if err != nil {
		t.Fatal(err)
	}
	learned, err := prepare.Load(filepath.Join(out, "transform", "transform.json"))
	if err != nil {
		t.Fatal(err)
	}
	p := learned.Steps[0].PCA
	if len(p.Components) != 1 || math.Abs(p.Components[0][0]-0.6) > 0.01 || math.Abs(p.Components[0][1]-0.8) > 0.01 || p.Explained[0] < 0.99 {
		t.Errorf("%+v", p)
	}
	if head, _, _ := strings.Cut(text(t, out, "train", "train.csv"), "\n"); head != "pca_1" {
		t.Errorf("columns %q", head)
	}
}

// A split takes exactly its share of every stratum, the same rows each time, and others by
// another seed; what is learned is learned of the rows to train on alone.
func TestASplitIsExactStratifiedAndSeeded(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var b strings.Builder
		b.WriteString("n,kind\n")
		counts := map[string]int{}
		n := rapid.IntRange(20, 200).Draw(r, "rows")
		for i := range n {
			kind := rapid.SampledFrom([]string{"a", "a", "a", "b", "c"}).Draw(r, "kind")
			counts[kind]++
			fmt.Fprintf(&b, "%d,%s\n", i, kind)
		}
		test, validation := rapid.Float64Range(0.05, 0.4).Draw(r, "test"), rapid.Float64Range(0, 0.4).Draw(r, "validation")
		p := steps.Plan{Label: "kind", Steps: []steps.Step{
			{Split: &steps.Split{Test: test, Validation: validation, Stratify: "kind", Seed: 7}}, {Scale: &steps.Scale{}},
		}}
		input := map[string]string{"input": file(t, "p.csv", b.String())}
		out, report, err := do(t, p, input)
		if err != nil {
			r.Fatal(err)
		}
		seen := map[string]int{}
		low, high := math.Inf(1), math.Inf(-1)
		learned, err := prepare.Load(filepath.Join(out, "transform", "transform.json"))
		if err != nil {
			r.Fatal(err)
		}
		s := learned.Steps[0].Scale
		for _, part := range p.Parts() {
			rows := strings.Split(strings.TrimSpace(text(t, out, part, part+".csv")), "\n")[1:]
			if int64(len(rows)) != report.Parts[part] {
				r.Fatalf("%s has %d rows, the report says %d", part, len(rows), report.Parts[part])
			}
			for _, row := range rows {
				cell, kind, _ := strings.Cut(row, ",")
				var v float64
				if _, err := fmt.Sscan(cell, &v); err != nil {
					r.Fatal(err)
				}
				seen[part+" "+kind]++
				seen[fmt.Sprintf("%.9f", v)]++
				if part == "train" {
					low, high = math.Min(low, v), math.Max(high, v)
				}
			}
		}
		if math.Abs(low+1) > 1e-9 || math.Abs(high-1) > 1e-9 {
			r.Fatalf("trained on from %v to %v, scaled by %+v", low, high, s)
		}
		for kind, n := range counts {
			if want := int(math.Round(test * float64(n))); math.Abs(float64(seen["test "+kind]-want)) > 1 {
				r.Fatalf("%d of %d %q are in test, want %d", seen["test "+kind], n, kind, want)
			}
		}
		again, _, err := do(t, p, input)
		if err != nil || text(t, again, "test", "test.csv") != text(t, out, "test", "test.csv") {
			r.Fatal("the same seed gives another split", err)
		}
		p.Steps[0].Split.Seed = 8
		if other, _, err := do(t, p, input); err != nil || n > 100 && text(t, other, "train", "train.csv") == text(t, out, "train", "train.csv") {
			r.Fatal("another seed gives the same split", err)
		}
	})
}

func TestASampleHasSoManyRows(t *testing.T) {
	input := map[string]string{"input": file(t, "p.csv", "n\n"+strings.Repeat("1\n", 999)+"2\n")}
	for text, want := range map[string]int64{`{"rows": 100, "seed": 1}`: 100, `{"share": 0.25}`: 250, `{"rows": 5000}`: 1000} {
		if _, report, err := do(t, plan(t, `{"steps": [{"sample": `+text+`}]}`), input); err != nil || report.Parts["train"] != want {
			t.Errorf("%s: %+v, %v", text, report, err)
		}
	}
}

// Whoever applies the saved transform to raw rows gets what preparation wrote.
func TestTheTransformDoesAtServingWhatPreparationDid(t *testing.T) {
	input := file(t, "p.csv", people)
	out, _, err := do(t, plan(t, `{"label": "bought", "steps": [
		{"drop": {"columns": ["id"]}}, {"clean": {"outliers": "iqr"}}, {"scale": {"standardize": true}}, {"one_hot": {}}, {"pca": {"components": 2}}]}`), map[string]string{"input": input})
	if err != nil {
		t.Fatal(err)
	}
	learned, err := prepare.Load(filepath.Join(out, "transform", "transform.json"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := table.Open(input, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	source.Fields[0].Kind, source.Fields[1].Kind = table.Number, table.Number
	if _, err := source.Each(t.Context(), func(b table.Batch) error {
		if err := learned.Apply(&b); err != nil {
			return err
		}
		if got, want := string(table.AppendCSV(nil, b)), text(t, out, "train", "train.csv"); "pca_1,pca_2,bought\n"+got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	unlabelled := table.NewBatch(learned.Input, 0)
	if err := learned.Apply(&unlabelled); err != nil || len(unlabelled.Columns) != 2 {
		t.Errorf("%v, %v", unlabelled, err)
	}
	wrong := table.NewBatch(learned.Input[1:], 0)
	if err := learned.Apply(&wrong); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `column "id" is missing`) {
		t.Error(err)
	}
}

func TestATransformThatWasTamperedWithIsRefused(t *testing.T) {
	out, _, err := do(t, plan(t, `{"label": "bought", "steps": [{"drop": {"columns": ["id"]}}, {"clean": {}}, {"one_hot": {}}]}`), map[string]string{"input": file(t, "p.csv", people)})
	if err != nil {
		t.Fatal(err)
	}
	whole := text(t, out, "transform", "transform.json")
	if _, err := prepare.Parse([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for old, changed := range map[string]string{
		"clary-transform/1": "clary-transform/9", `"age": 50`: `"aged": 50`, `"city=Rome"`: `"city=Roma"`, `"one_hot"`: `"two_hot"`, "{": "[",
	} {
		if _, err := prepare.Parse([]byte(strings.ReplaceAll(whole, old, changed))); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", changed, err)
		}
	}
}

func TestRubbishIsRefusedByItsField(t *testing.T) {
	input := map[string]string{"input": file(t, "p.csv", people), "twice": file(t, "q.csv", "city\nRome\nRome\n"), "same": file(t, "q.csv", "city,age\nRome,1\n")}
	for steps, want := range map[string]string{
		`{}`: "steps[0]: takes exactly one of",
		`{"drop": {"columns": ["id"]}, "pca": {"components": 1}}`: "steps[0]: takes exactly one of",
		`{"drop": {}}`:                                "steps[0].drop.columns: is empty",
		`{"drop": {"columns": ["Id"]}}`:               `drop: there is no column "Id": there are id, age`,
		`{"drop": {"columns": ["bought"]}}`:           "is the label",
		`{"clean": {"missing": "guess"}}`:             `steps[0].clean.missing: "guess": takes median`,
		`{"clean": {"outliers": "all"}}`:              "iqr, deviation",
		`{"scale": {"columns": ["city"]}}`:            `column "city" is text`,
		`{"scale": {"to": [1, 1]}}`:                   "the smaller first",
		`{"split": {"test": 1}}`:                      "takes a share",
		`{"split": {"test": 0.5, "validation": 0.5}}`: "leave something to train on",
		`{"split": {"test": 0.5, "stratify": "x"}}`:   `there is no column "x"`,
		`{"sample": {}}`:                              "either a number of rows or a share",
		`{"one_hot": {"limit": 1}}`:                   `column "city" has 2 values or more, and the limit is 1: drop the column`,
		`{"pca": {"components": 9}}`:                  "takes 1 to as many as there are columns",
		`{"pca": {"components": 1}}`:                  `column "age" has missing cells: clean it before`,
		`{"join": {"with": "gone", "on": "city"}}`:    `there is no input "gone"`,
		`{"join": {"with": "twice", "on": "city"}}`:   `two rows with "Rome"`,
		`{"join": {"with": "same", "on": "city"}}`:    `both tables have a column "age"`,
		`{"scale": {}}, {"split": {"test": 0.5}}`:     "stands behind scale",
		`{"clean": {"missing": "drop", "columns": ["city"]}}, {"clean": {"outliers": "deviation", "limit": 1e-9, "columns": ["id"], "then": "drop"}}`: "no row is left",
	} {
		if _, _, err := do(t, plan(t, `{"label": "bought", "steps": [`+steps+`]}`), input); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", steps, err)
		}
	}
	if _, _, err := do(t, plan(t, `{"label": "sold", "steps": []}`), input); err == nil || !strings.Contains(err.Error(), `label: the input has no column "sold"`) {
		t.Error(err)
	}
}

func TestBrokenRowsArePutAsideOnce(t *testing.T) {
	input := map[string]string{"input": file(t, "p.csv", "a,b\n1,2\n3\n5,6\n7,8,9\n")}
	out, report, err := do(t, plan(t, `{"on_broken": "quarantine", "steps": [{"scale": {}}]}`), input)
	if err != nil || report.Broken != 2 || report.Parts["train"] != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	if got := text(t, out, "quarantine", "broken.jsonl"); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"line":3`) || !strings.Contains(got, `"text":"7,8,9"`) {
		t.Errorf("put aside:\n%s", got)
	}
	if _, _, err := do(t, plan(t, `{"steps": []}`), input); err == nil || !strings.Contains(err.Error(), "line 3: 1 columns where the header has 2") {
		t.Error(err)
	}
}

func TestEveryFormatIsWritten(t *testing.T) {
	for _, format := range []string{table.CSV, table.JSONL, table.Parquet} {
		first, _, err := do(t, plan(t, `{"format": "`+format+`", "label": "bought", "steps": [{"clean": {}}]}`), map[string]string{"input": file(t, "p.csv", people)})
		if err != nil {
			t.Fatal(err)
		}
		second, report, err := do(t, plan(t, `{"label": "bought", "steps": []}`), map[string]string{"input": filepath.Join(first, "train")})
		if got, want := text(t, second, "train", "train.csv"), "id,age,city,bought\n1,20,Rome,no\n2,50,Oslo,yes\n3,40,Rome,no\n4,60,Rome,yes\n4,60,Rome,yes\n"; got != want || err != nil || report.Rows != 5 {
			t.Errorf("%s: %v\n%s", format, err, got)
		}
	}
}

// A second run into the same folder leaves nothing of the first, and may read what that wrote.
func TestARunReplacesWhatAnEarlierOneWrote(t *testing.T) {
	out := t.TempDir()
	run := func(input, text string) error {
		_, err := prepare.Run{Plan: plan(t, text), Inputs: map[string]string{"input": input}, Output: out}.Do(t.Context())
		return err
	}
	if err := run(file(t, "p.csv", people+"5,6\n"), `{"on_broken": "quarantine", "steps": [{"split": {"test": 0.4}}]}`); err != nil {
		t.Fatal(err)
	}
	first := text(t, out, "train", "train.csv")
	if err := run(filepath.Join(out, "train"), `{"steps": [{"drop": {"columns": ["none"]}}]}`); err == nil || text(t, out, "train", "train.csv") != first {
		t.Errorf("a run that failed has changed what there was: %v", err)
	}
	if err := run(file(t, "q.csv", "id\n1\n2\n"), `{"steps": [{"clean": {"columns": ["id"], "outliers": "deviation", "limit": 1e-9, "then": "drop", "missing": "keep"}}]}`); err == nil || text(t, out, "train", "train.csv") != first {
		t.Errorf("a run that wrote no row has changed what there was: %v", err)
	}
	if _, err := os.Stat(filepath.Join(out, "train", ".train.csv")); err == nil {
		t.Error("a run that failed left what it had begun")
	}
	if err := run(filepath.Join(out, "train"), `{"steps": []}`); err != nil || text(t, out, "train", "train.csv") != first {
		t.Errorf("its own input: %v\n%s", err, text(t, out, "train", "train.csv"))
	}
	if err := run(filepath.Join(out, "train"), `{"format": "jsonl", "steps": []}`); err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, pattern := range []string{"train/*", "train/.*", "test/*", "test/.*", "quarantine/*"} {
		found, err := filepath.Glob(filepath.Join(out, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if want := []string{filepath.Join(out, "train", "train.jsonl")}; !slices.Equal(files, want) {
		t.Errorf("there are %q", files)
	}
}
