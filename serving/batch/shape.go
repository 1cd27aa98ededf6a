package batch

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch/jsonpath"
	"github.com/clary-ml/clary/serving/batch/record"
)

// Assembly says what stands between the answers of an object.
type Assembly string

// The assemblies.
const (
	Concatenate Assembly = "none" // nothing
	Lines       Assembly = "line" // a newline behind each
)

// Shape says how an object becomes requests, and answers become an object.
type Shape struct {
	Split        record.Split `json:"split,omitempty"`         // none by default
	Assemble     Assembly     `json:"assemble,omitempty"`      // line for objects that are split by line, else none
	ContentType  string       `json:"content_type,omitempty"`  // of the input
	Accept       string       `json:"accept,omitempty"`        // of the output; the input's by default
	Join         bool         `json:"join,omitempty"`          // the output has the input before the prediction
	InputFilter  string       `json:"input_filter,omitempty"`  // JSONPath of what is sent of each record
	OutputFilter string       `json:"output_filter,omitempty"` // JSONPath of what is kept of each (joined) answer
}

// format is how a record can be read.
type format int

const (
	opaque format = iota
	csvRows
	jsonTexts // one to a line where objects are split by line
	jsonLines // one to a line anyway
)

func (f format) isJSON() bool { return f == jsonTexts || f == jsonLines }

func formatOf(contentType string) format {
	kind, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	switch strings.TrimSpace(kind) {
	case "text/csv", "application/csv":
		return csvRows
	case "application/json":
		return jsonTexts
	case "application/jsonlines", "application/x-jsonlines", "application/jsonl", "application/x-ndjson":
		return jsonLines
	}
	return opaque
}

// Resolved fills in what was left open.
func (s Shape) Resolved() Shape {
	if s.Split == "" {
		s.Split = record.None
	}
	if s.Assemble == "" {
		s.Assemble = Concatenate
		if s.Split == record.Line {
			s.Assemble = Lines
		}
	}
	if s.Accept == "" {
		s.Accept = s.ContentType
	}
	return s
}

// Validate reports the first thing in a shape that does not go together.
func (s Shape) Validate() error {
	_, err := s.compile()
	return err
}

// refiner is a shape that is ready for work.
type refiner struct {
	Shape
	in, out             format
	inFilter, outFilter jsonpath.Path
}

func (s Shape) compile() (refiner, error) {
	s = s.Resolved()
	r := refiner{Shape: s, in: formatOf(s.ContentType), out: formatOf(s.Accept)}
	if !slices.Contains(record.Splits(), s.Split) {
		return r, fault.New(fault.Invalid, "split: %q is unknown: none, line, record_io or tf_record", s.Split)
	}
	if s.Assemble != Lines && s.Assemble != Concatenate {
		return r, fault.New(fault.Invalid, "assemble: %q is unknown: none or line", s.Assemble)
	}
	var err error
	if r.inFilter, err = jsonpath.Parse(s.InputFilter); err != nil {
		return r, fault.New(fault.Invalid, "input_filter: %w", err)
	}
	if r.outFilter, err = jsonpath.Parse(s.OutputFilter); err != nil {
		return r, fault.New(fault.Invalid, "output_filter: %w", err)
	}
	return r, r.check()
}

func (r refiner) check() error {
	for _, part := range []struct {
		field, kind string
		used        bool
		format      format
		path        jsonpath.Path
	}{
		{"input_filter", r.ContentType, !r.inFilter.All(), r.in, r.inFilter},
		{"output_filter", r.Accept, !r.outFilter.All(), r.out, r.outFilter},
		{"join", r.ContentType, r.Join, r.in, jsonpath.Path{}},
	} {
		switch {
		case !part.used:
		case part.format == opaque:
			return fault.New(fault.Invalid, "%s: is for CSV and JSON, and the content type is %q: name text/csv, application/json or application/jsonlines", part.field, part.kind)
		case r.Split.Framed():
			return fault.New(fault.Invalid, "%s: is for CSV and JSON, and split is %q: use line or none", part.field, r.Split)
		case part.format == csvRows:
			if err := part.path.CheckColumns(); err != nil {
				return fault.New(fault.Invalid, "%s: %w", part.field, err)
			}
		}
	}
	switch {
	case r.Join && (r.in.isJSON() != r.out.isJSON() || r.byRow(r.in) != r.byRow(r.out)):
		return fault.New(fault.Invalid, "accept: %q cannot be joined with an input of %q: both are CSV, both JSON or both JSON lines", r.Accept, r.ContentType)
	case r.refines() && r.Split == record.Line && r.Assemble != Lines:
		return fault.New(fault.Invalid, "assemble: %q with split line, and answers are joined or filtered: use line", r.Assemble)
	}
	return nil
}

// refines reports whether answers are taken apart.
func (r refiner) refines() bool { return r.Join || !r.outFilter.All() }

// byRow reports whether a text is one row a line; else it is one JSON text.
func (r refiner) byRow(f format) bool {
	return r.Split == record.Line || f == csvRows || f == jsonLines
}

// request is what is sent for records, which for a split by line are joined by newlines.
func (r refiner) request(records []byte) ([]byte, error) {
	if r.inFilter.All() {
		return records, nil
	}
	if !r.byRow(r.in) {
		return r.inFilter.JSON(records)
	}
	rows := rowsOf(records)
	out := make([]byte, 0, len(records))
	for i, row := range rows {
		kept, err := filterRow(r.in, r.inFilter, row)
		if err != nil {
			return nil, &rowError{i, err}
		}
		if i > 0 {
			out = append(out, '\n')
		}
		out = append(out, kept...)
	}
	return out, nil
}

// rowError is of one record of a batch.
type rowError struct {
	row int // from 0
	err error
}

func (e *rowError) Error() string { return e.err.Error() }
func (e *rowError) Unwrap() error { return e.err }

// result is what the output has of an answer to records.
func (r refiner) result(records, answer []byte) ([]byte, error) {
	if !r.refines() {
		return r.closed(answer), nil
	}
	if !r.byRow(r.out) {
		text, err := r.refine(records, answer)
		if err != nil {
			return nil, err
		}
		return r.closed(text), nil
	}
	answers := rowsOf(answer)
	var inputs [][]byte
	if r.Join {
		if inputs = rowsOf(records); len(inputs) != len(answers) {
			return nil, fault.New(fault.Invalid,
				"%d records were sent and the server answered %d lines: to be joined, an answer has one line for each record", len(inputs), len(answers))
		}
	}
	out := make([]byte, 0, len(records)+len(answer))
	for i, row := range answers {
		var input []byte
		if r.Join {
			input = inputs[i]
		}
		text, err := r.refine(input, row)
		if err != nil {
			return nil, &rowError{i, err}
		}
		if i > 0 {
			out = append(out, '\n')
		}
		out = append(out, text...)
	}
	return r.closed(out), nil
}

// closed ends an answer with a newline where the assembly wants one.
func (r refiner) closed(answer []byte) []byte {
	if r.Assemble != Lines || len(answer) > 0 && answer[len(answer)-1] == '\n' {
		return answer
	}
	return append(answer[:len(answer):len(answer)], '\n')
}

// refine joins and filters one record's answer.
func (r refiner) refine(input, answer []byte) ([]byte, error) {
	text := answer
	if r.Join {
		var err error
		if text, err = joined(r.in, input, answer); err != nil {
			return nil, err
		}
	}
	if r.out.isJSON() && r.outFilter.All() {
		return oneLine(text), nil
	}
	kept, err := filterRow(r.out, r.outFilter, text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "output_filter: %w", err)
	}
	return oneLine(kept), nil
}

// oneLine takes the newlines out of a JSON text that spans several.
func oneLine(text []byte) []byte {
	if !bytes.ContainsAny(text, "\n\r") {
		return text
	}
	var flat bytes.Buffer
	if json.Compact(&flat, text) != nil {
		return text
	}
	return flat.Bytes()
}

// rowsOf are the lines of a text that are not blank.
func rowsOf(text []byte) [][]byte {
	rows := make([][]byte, 0, bytes.Count(text, []byte("\n"))+1)
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(bytes.TrimSpace(line)) > 0 {
			rows = append(rows, line)
		}
	}
	return rows
}
