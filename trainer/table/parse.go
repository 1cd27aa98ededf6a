package table

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/clary-ml/clary/internal/fault"
)

// Parse reads rows that are in memory already, such as those of a request: CSV or JSON lines with
// these columns. CSV may begin with a line of the columns' names, in any order; without one the
// cells are in the order of the fields. The text must not change while the batch is used. Rows
// that cannot be read are left out of the batch and reported.
func Parse(format string, text []byte, fields []Field, missing []string) (Batch, []Broken, error) {
	s := &Source{options: Options{Delimiter: ','}, missing: NewMissing(missing)}
	b, broken, _, err := s.parseFirst(format, text, fields)
	return b, broken, err
}

// header is the fields in the order in which the first record names them, if it names all of them
// and nothing else, and where it ends.
func header(text []byte, fields []Field) ([]Field, int) {
	end := recordEnd(text, ',', true)
	cells, reason := splitRecord(trimEnd(string(text[:end])), ',', nil)
	if reason != "" || len(cells) != len(fields) {
		return nil, 0
	}
	at := make(map[string]Field, len(fields))
	for _, f := range fields {
		at[f.Name] = f
	}
	named := make([]Field, 0, len(fields))
	for _, cell := range cells {
		f, known := at[cell]
		if !known {
			return nil, 0
		}
		delete(at, cell)
		named = append(named, f)
	}
	return named, end
}

// ParseStream is Parse of a stream, some rows at a time; visit ends it by an error. A batch may
// be kept.
func ParseStream(ctx context.Context, format string, from io.Reader, fields []Field, missing []string, visit func(Batch, []Broken) error) error {
	cut := lastLineEnd
	if format == CSV {
		cut = func(text []byte) int { return lastRecordEnd(text, ',') }
	}
	s := &Source{options: Options{Delimiter: ','}, missing: NewMissing(missing)}
	blocks := blocks{from: from, line: 1, cut: cut}
	for began := false; ; began = true {
		block, first, err := blocks.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if began {
			b, broken := s.parseBlock(format, block, first, fields)
			err = visit(b, broken)
		} else {
			b, broken, named, bad := s.parseFirst(format, block, fields)
			fields, err = named, bad
			if err == nil {
				err = visit(b, broken)
			}
		}
		if err != nil {
			return err
		}
	}
}

func (s *Source) parseBlock(format string, text []byte, line int, fields []Field) (Batch, []Broken) {
	if format == CSV {
		return s.parseCSV("", text, line, fields)
	}
	return s.parseJSON("", text, line, fields)
}

// parseFirst parses a block that may begin with a header, and returns the fields in its order.
func (s *Source) parseFirst(format string, text []byte, fields []Field) (Batch, []Broken, []Field, error) {
	line := 1
	switch format {
	case CSV:
		text = bytes.TrimPrefix(text, byteMark)
		if named, end := header(text, fields); named != nil {
			line += bytes.Count(text[:end], newline)
			fields, text = named, text[end:]
		}
	case JSONL:
	default:
		return Batch{}, nil, fields, fault.New(fault.Invalid, "rows in memory are %s or %s, not %q", CSV, JSONL, clip(format))
	}
	b, broken := s.parseBlock(format, text, line, fields)
	return b, broken, fields, nil
}
