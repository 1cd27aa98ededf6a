package table

import (
	"bufio"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/clary-ml/clary/internal/fault"
)

// Writer writes a table into a file. It is not safe for two goroutines.
type Writer struct {
	format  string
	fields  []Field
	file    *os.File
	buffer  *bufio.Writer
	parquet *parquetWriter
	text    []byte
	rows    int64
}

// Create begins a file; its name tells the format. CSV begins with a line of the names.
func Create(name string, fields []Field) (w *Writer, err error) {
	w = &Writer{format: FormatOf(name), fields: slices.Clone(fields)}
	if w.format == "" || strings.HasSuffix(name, ".gz") {
		return nil, fault.New(fault.Invalid, "%s: name it .csv, .jsonl or .parquet: its name says what is written", name)
	}
	if w.file, err = os.Create(name); err != nil {
		return nil, fault.New(fault.Internal, "write a table: %w", err)
	}
	w.buffer = bufio.NewWriterSize(w.file, 1<<18)
	switch w.format {
	case Parquet:
		if w.parquet, err = newParquetWriter(unclosed{w.buffer}, fields); err != nil {
			return nil, errors.Join(err, w.file.Close())
		}
	case CSV:
		for i, f := range fields {
			if i > 0 {
				w.text = append(w.text, ',')
			}
			w.text = appendCSV(w.text, f.Name)
		}
		w.text = append(w.text, '\n')
		_, err = w.buffer.Write(w.text)
	}
	return w, err
}

// unclosed keeps a Parquet writer from closing what is under it.
type unclosed struct{ io.Writer }

// Rows is how many were written.
func (w *Writer) Rows() int64 { return w.rows }

// Text is a batch as the writer's format has it, or nil where only Write can tell. It may be
// called by several goroutines at once.
func (w *Writer) Text(b Batch) []byte {
	switch w.format {
	case CSV:
		return AppendCSV(nil, b)
	case JSONL:
		return AppendJSON(nil, b)
	}
	return nil
}

// Write writes a batch. Its text is that of Text, or nil.
func (w *Writer) Write(b Batch, text []byte) error {
	w.rows += int64(b.Rows)
	if w.parquet != nil {
		return w.parquet.write(b)
	}
	if text == nil {
		text = w.Text(b)
	}
	_, err := w.buffer.Write(text)
	return err
}

// Close ends the file and syncs it.
func (w *Writer) Close() error {
	var err error
	if w.parquet != nil {
		err = w.parquet.to.Close()
	}
	return errors.Join(err, w.buffer.Flush(), w.file.Sync(), w.file.Close())
}

// AppendCSV appends the rows of a batch. Numbers are as short as reads back to the bit.
func AppendCSV(text []byte, b Batch) []byte {
	text = slices.Grow(text, 8*b.Rows*len(b.Columns))
	for row := range b.Rows {
		for i := range b.Columns {
			if i > 0 {
				text = append(text, ',')
			}
			c := &b.Columns[i]
			if c.Kind != Number {
				text = appendCSV(text, c.Texts[row])
			} else if !c.Missing(row) {
				text = AppendNumber(text, c.Numbers[row])
			}
		}
		if len(b.Columns) == 1 && b.Columns[0].Missing(row) {
			text = append(text, `""`...) // a blank line would be no row
		}
		text = append(text, '\n')
	}
	return text
}

func appendCSV(text []byte, cell string) []byte {
	if !strings.ContainsAny(cell, ",\"\r\n") && strings.TrimSpace(cell) == cell {
		return append(text, cell...)
	}
	text = append(text, '"')
	text = append(text, strings.ReplaceAll(cell, `"`, `""`)...)
	return append(text, '"')
}

// AppendNumber appends a number as short as reads back to the bit.
func AppendNumber(text []byte, v float64) []byte {
	if i := int64(v); float64(i) == v && i > -1e15 && i < 1e15 && (i != 0 || !math.Signbit(v)) {
		return strconv.AppendInt(text, i, 10)
	}
	return strconv.AppendFloat(text, v, 'g', -1, 64)
}

// AppendJSON appends the rows of a batch, one object a line; what is missing is null.
func AppendJSON(text []byte, b Batch) []byte {
	names := make([][]byte, len(b.Columns))
	for i, c := range b.Columns {
		names[i] = append(quote(nil, c.Name), ':')
	}
	for row := range b.Rows {
		text = append(text, '{')
		for i := range b.Columns {
			if i > 0 {
				text = append(text, ',')
			}
			text = append(text, names[i]...)
			switch c := &b.Columns[i]; {
			case c.Missing(row):
				text = append(text, "null"...)
			case c.Kind == Number:
				text = AppendNumber(text, c.Numbers[row])
			default:
				text = quote(text, c.Texts[row])
			}
		}
		text = append(text, '}', '\n')
	}
	return text
}

func quote(text []byte, s string) []byte {
	quoted, _ := jsontext.AppendQuote(text, s) // its only error: bytes that are not UTF-8 were replaced
	return quoted
}
