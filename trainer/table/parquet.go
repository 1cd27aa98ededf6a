package table

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/clary-ml/clary/internal/fault"
)

// parquetFormat has kinds of its own. Whole and floating numbers are numbers; all else is text,
// what is nested as JSON.
type parquetFormat struct{}

// parquetRows is how many rows a batch has.
const parquetRows = 8192

func openParquet(name string) (*file.Reader, *pqarrow.FileReader, error) {
	r, err := file.OpenParquetFile(name, false)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "is not a Parquet file: %w", err)
	}
	f, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{BatchSize: parquetRows}, memory.DefaultAllocator)
	if err != nil {
		return nil, nil, errors.Join(fault.New(fault.Invalid, "read the schema: %w", err), r.Close())
	}
	return r, f, nil
}

func (parquetFormat) names(name string, _ Options) (fields []Field, err error) {
	r, f, err := openParquet(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	schema, err := f.Schema()
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the schema: %w", err)
	}
	for _, field := range schema.Fields() {
		kind := Text
		if id := field.Type.ID(); arrow.IsInteger(id) || arrow.IsFloating(id) {
			kind = Number
		}
		fields = append(fields, Field{Name: field.Name, Kind: kind})
	}
	return fields, nil
}

func (parquetFormat) units(name string, s *Source, yield func(unit) error) (err error) {
	r, f, err := openParquet(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	records, err := f.GetRecordReader(context.Background(), nil, nil)
	if err != nil {
		return fault.New(fault.Invalid, "read: %w", err)
	}
	defer records.Release()
	row := 1
	for records.Next() {
		record := records.RecordBatch()
		record.Retain()
		first, fields := row, s.Fields
		row += int(record.NumRows())
		err := yield(func() (Batch, []Broken) {
			defer record.Release()
			return s.parseRecord(name, record, first, fields)
		})
		if err != nil {
			return err
		}
	}
	if err := records.Err(); err != nil && !errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "read: %w", err)
	}
	return nil
}

func (s *Source) parseRecord(name string, record arrow.RecordBatch, first int, fields []Field) (Batch, []Broken) {
	rows := int(record.NumRows())
	b := NewBatch(fields, rows)
	b.Rows = rows
	marked, broken := make([]bool, rows), []Broken(nil)
	for i := range marked {
		marked[i] = true
	}
	for i := range b.Columns {
		c, from := &b.Columns[i], record.Column(i)
		if c.Kind != Number {
			for row := range rows {
				c.Texts = append(c.Texts, s.text(from, row))
			}
			continue
		}
		for row, v := range numbers(from) {
			if math.IsInf(v, 0) && marked[row] {
				marked[row] = false
				broken = append(broken, Broken{
					File: name, Line: first + row, Text: strconv.FormatFloat(v, 'g', -1, 64),
					Reason: fmt.Sprintf("column %s: %v is not a finite number", clip(c.Name), v),
				})
			}
			c.Numbers = append(c.Numbers, v)
		}
	}
	if len(broken) > 0 {
		b.Keep(marked)
	}
	return b, broken
}

func (s *Source) text(from arrow.Array, row int) string {
	if from.IsNull(row) {
		return ""
	}
	text := ""
	switch from := from.(type) {
	case *array.String: // its bytes live as long as the file is open
		text = string([]byte(from.Value(row)))
	default:
		text = from.ValueStr(row)
	}
	if s.missing.Has(text) {
		return ""
	}
	return text
}

// numbers are the values of an array of numbers, NaN for null.
func numbers(from arrow.Array) []float64 {
	out := make([]float64, from.Len())
	switch a := from.(type) {
	case *array.Float64:
		copy(out, a.Float64Values())
	case *array.Float32:
		convert(out, a.Float32Values())
	case *array.Int64:
		convert(out, a.Int64Values())
	case *array.Int32:
		convert(out, a.Int32Values())
	case *array.Int16:
		convert(out, a.Int16Values())
	case *array.Int8:
		convert(out, a.Int8Values())
	case *array.Uint64:
		convert(out, a.Uint64Values())
	case *array.Uint32:
		convert(out, a.Uint32Values())
	case *array.Uint16:
		convert(out, a.Uint16Values())
	case *array.Uint8:
		convert(out, a.Uint8Values())
	default: // half floats
		for row := range out {
			if v, err := strconv.ParseFloat(from.ValueStr(row), 64); err == nil {
				out[row] = v
			}
		}
	}
	if from.NullN() > 0 {
		for row := range out {
			if from.IsNull(row) {
				out[row] = nan
			}
		}
	}
	return out
}

func convert[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | float32](to []float64, from []T) {
	for i, v := range from {
		to[i] = float64(v)
	}
}

// parquetWriter writes row groups as they come.
type parquetWriter struct {
	to     *pqarrow.FileWriter
	schema *arrow.Schema
}

func newParquetWriter(to io.Writer, fields []Field) (*parquetWriter, error) {
	var columns []arrow.Field
	for _, f := range fields {
		column := arrow.Field{Name: f.Name, Type: arrow.BinaryTypes.String, Nullable: true}
		if f.Kind == Number {
			column.Type = arrow.PrimitiveTypes.Float64
		}
		columns = append(columns, column)
	}
	schema := arrow.NewSchema(columns, nil)
	w, err := pqarrow.NewFileWriter(schema, to, parquet.NewWriterProperties(), pqarrow.DefaultWriterProps())
	if err != nil {
		return nil, fault.New(fault.Internal, "write Parquet: %w", err)
	}
	return &parquetWriter{to: w, schema: schema}, nil
}

func (w *parquetWriter) write(b Batch) error {
	builder := array.NewRecordBuilder(memory.DefaultAllocator, w.schema)
	defer builder.Release()
	for i := range b.Columns {
		c := &b.Columns[i]
		switch to := builder.Field(i).(type) {
		case *array.Float64Builder:
			for row, v := range c.Numbers {
				appendOr(to, c.Missing(row), v)
			}
		case *array.StringBuilder:
			for row, v := range c.Texts {
				appendOr(to, c.Missing(row), v)
			}
		}
	}
	record := builder.NewRecordBatch()
	defer record.Release()
	return w.to.WriteBuffered(record)
}

func appendOr[T any](to interface {
	Append(T)
	AppendNull()
}, missing bool, value T,
) {
	if missing {
		to.AppendNull()
	} else {
		to.Append(value)
	}
}
