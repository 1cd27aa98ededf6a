package table

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/channel"
)

// jsonFormat is one object a line. A column that an object lacks, or has as null, is missing
// there; what is nested stays as its JSON text.
type jsonFormat struct{}

// jsonNamesFrom is how many objects of the first file tell the columns.
const jsonNamesFrom = 1000

// names are those of the first objects, in the order they come up.
func (jsonFormat) names(file string, _ Options) (fields []Field, err error) {
	f, err := channel.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	known := map[string]bool{}
	rows := 0
	b := blocks{from: f, line: 1, cut: lastLineEnd}
	for rows < jsonNamesFrom {
		block, _, err := b.next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(block) {
			if rows++; rows > jsonNamesFrom {
				break
			}
			// A broken line has its say when the table is read.
			_ = readObject(line, func(name, _ string) error {
				if !known[name] {
					known[name] = true
					fields = append(fields, Field{Name: name, Kind: Text})
				}
				return nil
			})
		}
	}
	if len(fields) == 0 {
		return nil, fault.New(fault.Invalid, "has no JSON object in its first lines: one object a line is needed")
	}
	return fields, nil
}

func lastLineEnd(text []byte) int { return bytes.LastIndexByte(text, '\n') + 1 }

func (jsonFormat) units(file string, s *Source, yield func(unit) error) (err error) {
	f, err := channel.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := blocks{from: f, line: 1, cut: lastLineEnd}
	for {
		block, first, err := b.next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		fields := s.Fields
		if err := yield(func() (Batch, []Broken) { return s.parseJSON(file, block, first, fields) }); err != nil {
			return err
		}
	}
}

func (s *Source) parseJSON(file string, block []byte, line int, fields []Field) (Batch, []Broken) {
	b := NewBatch(fields, bytes.Count(block, newline)+1)
	at := make(map[string]int, len(fields))
	for i, f := range fields {
		at[f.Name] = i
	}
	var broken []Broken
	cells := make([]string, len(fields))
	for text := range bytes.Lines(block) {
		first := line
		line++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		clear(cells)
		reason := ""
		err := readObject(text, func(name, value string) error {
			i, known := at[name]
			if !known {
				return fmt.Errorf("column %q is not among those of the first objects", clip(name))
			}
			cells[i] = value
			return nil
		})
		if err != nil {
			reason = err.Error()
		} else {
			reason = s.add(&b, cells)
		}
		if reason != "" {
			broken = append(broken, Broken{File: file, Line: first, Reason: reason, Text: string(text)})
		}
	}
	return b, broken
}

// readObject reads a line that is one object. The values that are not strings come as they are
// written; null comes as "".
func readObject(line []byte, visit func(name, value string) error) error {
	d := jsontext.NewDecoder(bytes.NewReader(line))
	token, err := d.ReadToken()
	if err != nil {
		return brokenJSON(err)
	}
	if token.Kind() != '{' {
		return errors.New("is not a JSON object")
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return brokenJSON(err)
		}
		key := name.String()
		value, err := d.ReadValue()
		if err != nil {
			return brokenJSON(err)
		}
		text, err := cellOf(value)
		if err == nil {
			err = visit(key, text)
		}
		if err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return brokenJSON(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("something stands behind the object: one object a line is needed")
	}
	return nil
}

func cellOf(value jsontext.Value) (string, error) {
	switch value.Kind() {
	case '"':
		text, err := jsontext.AppendUnquote(nil, value)
		if err != nil {
			return "", brokenJSON(err)
		}
		return unsafe.String(unsafe.SliceData(text), len(text)), nil
	case 'n':
		return "", nil
	}
	return string(value), nil
}

func brokenJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON ends too early")
	}
	return fmt.Errorf("is not JSON: %w", err)
}
