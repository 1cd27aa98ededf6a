package batch_test

import (
	"context"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch"
	"github.com/clary-ml/clary/serving/batch/record"
)

// answers is a server that answers by a function.
type answers func(request string) (string, error)

func (a answers) Invoke(ctx context.Context, request []byte) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	text, err := a(string(request))
	return []byte(text), err
}

// eachLine answers every line of a request by a function of it.
func eachLine(f func(line string) string) answers {
	return func(request string) (string, error) {
		lines := strings.Split(request, "\n")
		for i, line := range lines {
			lines[i] = f(line)
		}
		return strings.Join(lines, "\n"), nil
	}
}

const csvType, jsonType, linesType = "text/csv", "application/json", "application/jsonlines"

func TestAnswersAreFilteredJoinedAndAssembled(t *testing.T) {
	size := eachLine(func(line string) string { return "p" + strings.Repeat("+", len(line)) })
	class := eachLine(func(line string) string { return `{"class": ` + string(rune('0'+len(line)%10)) + `}` })
	for _, test := range []struct {
		claim  string
		shape  batch.Shape
		server answers
		in     string
		want   string
	}{
		{"as it is", batch.Shape{}, size, "a\nbb\n", "p+\np++\np"},
		{"whole, with a newline", batch.Shape{Assemble: batch.Lines}, size, "a", "p+\n"},
		{"an empty object", batch.Shape{}, size, "", ""},
		{"lines", batch.Shape{Split: record.Line}, size, "a\nbb\n\nccc", "p+\np++\np+++\n"},
		{"lines without newlines between requests", batch.Shape{Split: record.Line, Assemble: batch.Concatenate}, size, "a\nbb", "p+\np++"},
		{
			"columns are sent",
			batch.Shape{Split: record.Line, ContentType: csvType, InputFilter: "$[1:]"},
			eachLine(strings.ToUpper), "1,a,b\n2,c,\"d,e\"\n", "A,B\nC,\"D,E\"\n",
		},
		{
			"input and prediction",
			batch.Shape{Split: record.Line, ContentType: csvType, InputFilter: "$[1:]", Join: true},
			eachLine(strings.ToUpper), "1,a\r\n2,\"b,\"\"x\"\"\"\n", "1,a,A\n2,\"b,\"\"x\"\"\",\"B,\"\"X\"\"\"\n",
		},
		{
			"id and prediction",
			batch.Shape{Split: record.Line, ContentType: csvType, InputFilter: "$[1:]", Join: true, OutputFilter: "$[0,-1]"},
			eachLine(strings.ToUpper), "1,a\n2,b\n", "1,A\n2,B\n",
		},
		{
			"a table that is not split",
			batch.Shape{ContentType: csvType, InputFilter: "$[0]", Join: true},
			eachLine(strings.ToUpper), "a,b\n\nc,d\n", "a,b,A\nc,d,C",
		},
		{
			"JSON lines",
			batch.Shape{Split: record.Line, ContentType: linesType, Join: true},
			class, `{"x": 1.0, "<y>":"é"}` + "\n[1,2]\n", `{"x":1.0,"<y>":"é","SageMakerOutput":{"class": 2}}` + "\n" + `{"SageMakerInput":[1,2],"SageMakerOutput":{"class": 5}}` + "\n",
		},
		{
			"what an earlier transform said is replaced",
			batch.Shape{Split: record.Line, ContentType: linesType, Join: true},
			eachLine(func(string) string { return "2" }), `{"SageMakerOutput":1,"x":3}`, `{"SageMakerOutput":2,"x":3}` + "\n",
		},
		{
			"an object with nothing in it",
			batch.Shape{Split: record.Line, ContentType: jsonType, Join: true},
			eachLine(func(string) string { return "2" }), "{}", `{"SageMakerOutput":2}` + "\n",
		},
		{
			"parts of JSON",
			batch.Shape{Split: record.Line, ContentType: jsonType, InputFilter: "$.features", Join: true, OutputFilter: "$['id','SageMakerOutput']"},
			eachLine(func(line string) string { return line }), `{"id":7,"features":[1,2]}`, `{"id":7,"SageMakerOutput":[1,2]}` + "\n",
		},
		{
			"one JSON text over several lines",
			batch.Shape{ContentType: jsonType, Join: true},
			func(string) (string, error) { return "{\n \"p\": 1\n}", nil }, "{\n \"x\": [1,\n 2]}\n", `{"x":[1,2],"SageMakerOutput":{"p":1}}`,
		},
		{"an answer is filtered", batch.Shape{Split: record.Line, Accept: jsonType, OutputFilter: "$.class"}, class, "a\nbb\n", "1\n2\n"},
	} {
		t.Run(test.claim, func(t *testing.T) {
			for _, strategy := range []batch.Strategy{batch.Multi, batch.Single} {
				if test.shape.Assemble == batch.Concatenate && test.shape.Split == record.Line && strategy == batch.Single {
					continue // has other bytes, by its meaning
				}
				f := newFolders(t, map[string]string{"x": test.in})
				summary, err := batch.Run(t.Context(), f.options(test.server, test.shape, batch.Limits{Strategy: strategy}))
				if err != nil || len(summary.Failed) > 0 {
					t.Fatalf("%+v, %v", summary.Failed, err)
				}
				if got := f.outputs(t)["x.out"]; got != test.want {
					t.Errorf("%s: %q\nwant %q", strategy, got, test.want)
				}
			}
		})
	}
}

func TestRefusesShapesThatDoNotGoTogether(t *testing.T) {
	for _, test := range []struct {
		shape batch.Shape
		want  string
	}{
		{batch.Shape{Split: "lines"}, `split: "lines" is unknown`},
		{batch.Shape{Assemble: "lines"}, `assemble: "lines" is unknown`},
		{batch.Shape{ContentType: csvType, InputFilter: "$["}, "input_filter: "},
		{batch.Shape{ContentType: csvType, InputFilter: "$.age"}, "input_filter: columns of CSV have numbers"},
		{batch.Shape{InputFilter: "$[0]"}, "input_filter: is for CSV and JSON"},
		{batch.Shape{ContentType: csvType, Accept: "image/png", OutputFilter: "$[0]"}, "output_filter: is for CSV and JSON"},
		{batch.Shape{Join: true}, "join: is for CSV and JSON"},
		{batch.Shape{Join: true, ContentType: csvType, Split: record.RecordIO}, `join: is for CSV and JSON, and split is "record_io"`},
		{batch.Shape{Join: true, ContentType: csvType, Accept: jsonType}, `accept: "application/json" cannot be joined`},
		{batch.Shape{Join: true, ContentType: jsonType, Accept: linesType}, "cannot be joined"},
		{batch.Shape{Join: true, ContentType: csvType, Split: record.Line, Assemble: batch.Concatenate}, "use line"},
	} {
		err := test.shape.Validate()
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.shape, err, test.want)
		}
	}
	good := batch.Shape{Split: record.Line, Join: true, ContentType: "Application/JSON; charset=utf-8", Accept: linesType}
	if err := good.Validate(); err != nil {
		t.Errorf("%+v: %v", good, err)
	}
}

func TestTheRequestGoesBeforeTheServerBeforeDefaults(t *testing.T) {
	server := batch.Limits{Concurrent: 4, Payload: 1 << 20}
	got := batch.Limits{Payload: 2 << 20}.Else(server).Else(batch.Defaults())
	if got != (batch.Limits{Concurrent: 4, Strategy: batch.Multi, Payload: 2 << 20}) {
		t.Errorf("%+v", got)
	}
	if got := (batch.Limits{}).Else(batch.Defaults()); got != (batch.Limits{Concurrent: 1, Strategy: batch.Multi, Payload: 6 << 20}) {
		t.Errorf("by default %+v", got)
	}
}

func FuzzJoinsAndFilters(f *testing.F) {
	f.Add("1,a\n2,b\n", "x\ny", true, "$[1:]", "$[0,-1]", uint8(0))
	f.Add(`{"a":1}`, `[1]`, true, "$.a", "$['SageMakerOutput']", uint8(1))
	f.Add("{\"a\":\"\n", "{", false, "$", "$.a", uint8(2))
	f.Fuzz(func(t *testing.T, input, answer string, join bool, inFilter, outFilter string, kind uint8) {
		contentType := []string{csvType, jsonType, linesType}[kind%3]
		for _, split := range []record.Split{record.Line, record.None} {
			shape := batch.Shape{Split: split, ContentType: contentType, Join: join, InputFilter: inFilter, OutputFilter: outFilter}
			if shape.Validate() != nil {
				continue
			}
			folders := newFolders(t, map[string]string{"x": input})
			server := answers(func(string) (string, error) { return answer, nil })
			summary, err := batch.Run(t.Context(), folders.options(server, shape, batch.Limits{}))
			if err != nil {
				t.Fatal(err)
			}
			if _, there := folders.outputs(t)["x.out"]; there == (len(summary.Failed) > 0) {
				t.Errorf("failed %v, output %t", summary.Failed, there)
			}
		}
	})
}
