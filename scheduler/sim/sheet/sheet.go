// Package sheet reads the CSV files of traces strictly: columns by their name, numbers
// within bounds, and whatever is wrong is said with the file, the line and the column.
package sheet

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// MaxRows is how many rows a file may have: more is no trace that a simulation ends with.
const MaxRows = 5_000_000

// Row is one line below the heading. The first mistake in it stays; see Err.
type Row struct {
	file    string
	line    int
	columns map[string]int
	fields  []string
	err     error
}

// Read calls each for every row of a file, whose heading must name all columns. It
// stops at the first row that has a mistake. Other columns are let be.
func Read(file string, in io.Reader, columns []string, each func(*Row) error) error {
	r := csv.NewReader(in)
	r.FieldsPerRecord = -1
	r.ReuseRecord = true
	heading, err := r.Read()
	if errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "%s: empty: its first line names the columns %s", file, strings.Join(columns, ", "))
	}
	if err != nil {
		return broken(file, err)
	}
	named, err := nameColumns(file, heading, columns)
	if err != nil {
		return err
	}
	width := len(heading)
	for rows := 0; ; rows++ {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return broken(file, err)
		}
		line, _ := r.FieldPos(0)
		row := &Row{file: file, line: line, columns: named, fields: fields}
		if len(fields) != width {
			return row.Wrong("", "%d fields, the heading has %d", len(fields), width)
		}
		if rows >= MaxRows {
			return row.Wrong("", "more than %d rows", MaxRows)
		}
		if err := each(row); err != nil {
			return err
		}
		if row.err != nil {
			return row.err
		}
	}
}

func nameColumns(file string, heading, columns []string) (map[string]int, error) {
	named := map[string]int{}
	for i, name := range heading {
		name = strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))
		if _, twice := named[name]; twice {
			return nil, fault.New(fault.Invalid, "%s: line 1: column %q is there twice", file, clip(name))
		}
		named[name] = i
	}
	for _, name := range columns {
		if _, there := named[name]; !there {
			return nil, fault.New(fault.Invalid, "%s: line 1: no column %q: it needs %s", file, name, strings.Join(columns, ", "))
		}
	}
	return named, nil
}

func broken(file string, err error) error {
	var syntax *csv.ParseError
	if errors.As(err, &syntax) {
		return fault.New(fault.Invalid, "%s: line %d: %v", file, min(syntax.Line, syntax.StartLine), syntax.Err) // a quote that is never closed ends where the file does
	}
	return fmt.Errorf("%s: %w", file, err)
}

// Line is the row's number in the file, the heading being 1.
func (r *Row) Line() int { return r.line }

// Err is the first mistake that reading the row's fields found.
func (r *Row) Err() error { return r.err }

// Wrong is an error that names the file, the line and, unless empty, the column.
func (r *Row) Wrong(column, format string, args ...any) error {
	where := ""
	if column != "" {
		where = column + ": "
	}
	return fault.New(fault.Invalid, "%s: line %d: %s%s", r.file, r.line, where, fmt.Sprintf(format, args...))
}

func (r *Row) fail(column, format string, args ...any) {
	if r.err == nil {
		r.err = r.Wrong(column, format, args...)
	}
}

// Text is a field that must not be empty.
func (r *Row) Text(column string) string {
	text := r.Maybe(column)
	if text == "" {
		r.fail(column, "empty")
	}
	return text
}

// Maybe is a field that may be empty, or a column that may be missing.
func (r *Row) Maybe(column string) string {
	i, there := r.columns[column]
	if !there {
		return ""
	}
	return strings.Clone(strings.TrimSpace(r.fields[i]))
}

// Int is a whole number from least to most.
func (r *Row) Int(column string, least, most int64) int64 {
	text := r.Text(column)
	if r.err != nil {
		return least
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && (n < least || n > most):
		r.fail(column, "%s is out of range: from %d to %d", clip(text), least, most)
		return least
	case err != nil:
		r.fail(column, "%q is not a whole number", clip(text))
		return least
	}
	return n
}

// Float is a finite number from least to most.
func (r *Row) Float(column string, least, most float64) float64 {
	text := r.Text(column)
	if r.err != nil {
		return least
	}
	x, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		r.fail(column, "%q is not a number", clip(text))
		return least
	case math.IsNaN(x) || x < least || x > most:
		r.fail(column, "%s is out of range: from %g to %g", clip(text), least, most)
		return least
	}
	return x
}

func clip(text string) string {
	if len(text) > 40 {
		return text[:40] + "..."
	}
	return text
}
