// Package payload reads and writes what requests carry: rows as CSV, JSON or JSON lines, by a
// model's signature.
//
// A row is cells in the order of the model's inputs, or an object that names them. An input of
// several values takes a list, nested or not.
package payload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// Decoder reads rows for a model.
type Decoder struct {
	Inputs []tensor.Port
	// Missing reports whether a text means a missing cell; nil knows the empty one alone.
	Missing func(string) bool
}

// Decode turns a body into tensors, one for each input, with as many rows as are returned.
func (d Decoder) Decode(f Format, body []byte) (tensors []tensor.Tensor, rows int, err error) {
	b, err := d.builder()
	if err != nil {
		return nil, 0, err
	}
	switch f {
	case CSV:
		err = b.csv(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	case JSONLines:
		err = b.lines(body)
	default:
		err = b.json(body)
	}
	if err != nil {
		return nil, 0, err
	}
	return b.tensors()
}

// builder gathers cells by input.
type builder struct {
	columns []column
	at      map[string]int
	rows    int
	order   []int // of the columns among a CSV line's cells; nil is their own
}

// column is the cells of one input.
type column struct {
	port    tensor.Port
	missing func(string) bool
	width   int // values of a row; -1 before the first
	floats  []float32
	doubles []float64
	texts   []string
}

func (d Decoder) builder() (*builder, error) {
	b := &builder{columns: make([]column, len(d.Inputs))}
	if len(d.Inputs) > 1 {
		b.at = make(map[string]int, len(d.Inputs))
	}
	for i, p := range d.Inputs {
		c := column{port: p, width: p.Width(), missing: d.Missing}
		if c.width < 0 && len(p.Shape) != 2 {
			return nil, fault.New(fault.Invalid, "input %q has the shape %v, which rows cannot tell: ask by the v2 protocol", p.Name, p.Shape)
		}
		b.columns[i] = c
		if b.at != nil {
			b.at[p.Name] = i
		}
	}
	return b, nil
}

// find is the number of the input of that name, or -1.
func (b *builder) find(name string) int {
	if b.at == nil {
		if name == b.columns[0].port.Name || name == "features" {
			return 0
		}
		return -1
	}
	if i, known := b.at[name]; known {
		return i
	}
	return -1
}

// add appends a cell, or says what is wrong with it.
func (c *column) add(cell string) error {
	if c.port.Type == tensor.Float32 {
		v, err := strconv.ParseFloat(cell, 32)
		if err != nil || v-v != 0 {
			return c.bad(cell, "is not a finite number")
		}
		c.floats = append(c.floats, float32(v))
		return nil
	}
	missing := cell == "" || c.missing != nil && c.missing(cell)
	if c.port.Type == tensor.Bytes {
		if missing {
			cell = ""
		}
		c.texts = append(c.texts, cell)
		return nil
	}
	if missing && c.port.Type == tensor.Float64 {
		c.doubles = append(c.doubles, math.NaN())
		return nil
	}
	if cell == "true" || cell == "false" {
		cell = map[string]string{"true": "1", "false": "0"}[cell]
	}
	v, err := strconv.ParseFloat(cell, 64)
	if err != nil || v-v != 0 {
		return c.bad(cell, "is not a finite number")
	}
	if c.port.Type != tensor.Float64 && v != math.Trunc(v) {
		return c.bad(cell, "is not a whole number, and the input is "+string(c.port.Type))
	}
	c.doubles = append(c.doubles, v)
	return nil
}

func (c *column) bad(cell, why string) error {
	if cell == "" {
		return fault.New(fault.Invalid, "%q is empty: give a number", c.port.Name)
	}
	return fault.New(fault.Invalid, "%q: %q %s", c.port.Name, clip(cell), why)
}

func (c *column) len() int { return len(c.floats) + len(c.doubles) + len(c.texts) }

// end closes a row: every input has got its values, no more and no less.
func (b *builder) end() error {
	for i := range b.columns {
		c := &b.columns[i]
		got := c.len() - b.rows*max(c.width, 0)
		if c.width < 0 {
			c.width = got
		}
		switch {
		case got == c.width:
		case got == 0 && c.width == 1 && (c.port.Type == tensor.Bytes || c.port.Type == tensor.Float64):
			if err := c.add(""); err != nil { // an object may lack what is missing
				return err
			}
		default:
			return fault.New(fault.Invalid, "%q has %d values: a row of it has %d", c.port.Name, got, c.width)
		}
	}
	b.rows++
	return nil
}

// row reads one JSON value as a row.
func (b *builder) row(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '{':
		if err := b.object(d); err != nil {
			return err
		}
	case '[':
		if len(b.columns) == 1 {
			if err := b.columns[0].value(d); err != nil {
				return err
			}
			break
		}
		if err := b.cells(d); err != nil {
			return err
		}
	default:
		if len(b.columns) > 1 {
			return fault.New(fault.Invalid, "is no row: give an object, or a list of %d cells", len(b.columns))
		}
		if err := b.columns[0].value(d); err != nil {
			return err
		}
	}
	return b.end()
}

func (b *builder) object(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return brokenJSON(err)
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return brokenJSON(err)
		}
		key := name.String()
		i := b.find(key)
		if i < 0 {
			return fault.New(fault.Invalid, "%q is none of the model's inputs", clip(key))
		}
		if err := b.columns[i].value(d); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return brokenJSON(err)
}

func (b *builder) cells(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return brokenJSON(err)
	}
	for i := 0; d.PeekKind() != ']'; i++ {
		if i == len(b.columns) {
			return fault.New(fault.Invalid, "has more than %d cells", len(b.columns))
		}
		if err := b.columns[i].value(d); err != nil {
			return err
		}
		if i+1 < len(b.columns) && d.PeekKind() == ']' {
			return fault.New(fault.Invalid, "has %d cells: a row has %d", i+1, len(b.columns))
		}
	}
	_, err := d.ReadToken()
	return brokenJSON(err)
}

// value reads a scalar, or all scalars of a list.
func (c *column) value(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case '[':
		if _, err := d.ReadToken(); err != nil {
			return brokenJSON(err)
		}
		for d.PeekKind() != ']' {
			if err := c.value(d); err != nil {
				return err
			}
		}
		_, err := d.ReadToken()
		return brokenJSON(err)
	case '{':
		return fault.New(fault.Invalid, "%q is an object: give a value, or a list of them", c.port.Name)
	case '"':
		text, err := d.ReadToken()
		if err != nil {
			return brokenJSON(err)
		}
		return c.add(text.String())
	}
	value, err := d.ReadValue()
	if err != nil {
		return brokenJSON(err)
	}
	if value.Kind() == 'n' {
		return c.add("")
	}
	if c.port.Type == tensor.Bytes {
		return c.add(string(value))
	}
	return c.add(unsafe.String(unsafe.SliceData(value), len(value)))
}

// json reads a whole body: a row, a list of rows, or an object whose "instances" are a list.
func (b *builder) json(body []byte) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(body))
	if d.PeekKind() == '{' {
		list, err := b.instances(body)
		if err != nil {
			return err
		}
		if list != nil {
			return b.list(jsontext.NewDecoder(bytes.NewBuffer(list)))
		}
		return b.only(d)
	}
	if d.PeekKind() == '[' && !b.flat(body) {
		return b.list(d)
	}
	return b.only(d)
}

// flat reports whether a list holds the cells of one row, and not rows.
func (b *builder) flat(body []byte) bool {
	d := jsontext.NewDecoder(bytes.NewBuffer(body))
	_, _ = d.ReadToken()
	if k := d.PeekKind(); k == '[' || k == '{' || k == ']' {
		return false
	}
	return len(b.columns) > 1 || b.columns[0].width != 1
}

// instances is the list of rows that an object holds, or nil if it is a row itself.
func (b *builder) instances(body []byte) (list jsontext.Value, err error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(body))
	if _, err := d.ReadToken(); err != nil {
		return nil, brokenJSON(err)
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, brokenJSON(err)
		}
		wanted := b.find(name.String()) < 0 && slices.Contains([]string{"instances", "inputs"}, name.String())
		if !wanted && b.find(name.String()) >= 0 {
			return nil, nil
		}
		value, err := d.ReadValue()
		if err != nil {
			return nil, brokenJSON(err)
		}
		if wanted {
			list = value.Clone()
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, brokenJSON(err)
	}
	if err := ended(d); err != nil {
		return nil, err
	}
	if list != nil && list.Kind() != '[' {
		return nil, fault.New(fault.Invalid, "\"instances\" is no list: give a list of rows")
	}
	return list, nil
}

func (b *builder) only(d *jsontext.Decoder) error {
	if err := b.row(d); err != nil {
		return fmt.Errorf("row 1: %w", err)
	}
	return ended(d)
}

func (b *builder) list(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return brokenJSON(err)
	}
	for d.PeekKind() != ']' {
		if err := b.row(d); err != nil {
			return fmt.Errorf("row %d: %w", b.rows+1, err)
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return brokenJSON(err)
	}
	return ended(d)
}

func (b *builder) lines(body []byte) error {
	line := 0
	for text := range bytes.Lines(body) {
		line++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		d := jsontext.NewDecoder(bytes.NewBuffer(text))
		err := b.row(d)
		if err == nil {
			err = ended(d)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
	return nil
}

func ended(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "something stands behind the JSON value")
	}
	return nil
}

func brokenJSON(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Invalid, "the JSON ends too early")
	}
	return fault.New(fault.Invalid, "is not JSON: %w", err)
}

// tensors are what was gathered.
func (b *builder) tensors() ([]tensor.Tensor, int, error) {
	if b.rows == 0 {
		return nil, 0, fault.New(fault.Invalid, "the request has no rows")
	}
	out := make([]tensor.Tensor, len(b.columns))
	for i := range b.columns {
		c := &b.columns[i]
		shape := append([]int64{int64(b.rows)}, c.port.Shape[min(1, len(c.port.Shape)):]...)
		if c.port.Width() < 0 {
			shape[1] = int64(c.width)
		}
		out[i] = tensor.Tensor{Name: c.port.Name, Type: c.port.Type, Shape: shape}
		var err error
		if out[i].Data, err = c.data(); err != nil {
			return nil, 0, err
		}
	}
	return out, b.rows, nil
}

func (c *column) data() (any, error) {
	switch c.port.Type {
	case tensor.Float32:
		return c.floats, nil
	case tensor.Float64:
		return c.doubles, nil
	case tensor.Bytes:
		return c.texts, nil
	}
	return tensor.Whole(c.port.Name, c.port.Type, c.doubles)
}

// clip shortens what an error quotes.
func clip(text string) string {
	if len(text) > 40 {
		return text[:40] + "…"
	}
	return text
}
