// Package tensor has the values that a model server takes and gives: named arrays whose first
// dimension counts rows, in the types of the Open Inference Protocol.
package tensor

import (
	"math"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
)

// Type is a tensor's element type, by the protocol's name.
type Type string

// The types. FP16 and BF16 are known by name and refused.
const (
	Bool    Type = "BOOL"
	Uint8   Type = "UINT8"
	Uint16  Type = "UINT16"
	Uint32  Type = "UINT32"
	Uint64  Type = "UINT64"
	Int8    Type = "INT8"
	Int16   Type = "INT16"
	Int32   Type = "INT32"
	Int64   Type = "INT64"
	Float32 Type = "FP32"
	Float64 Type = "FP64"
	Bytes   Type = "BYTES"
)

// MaxDimensions bounds a shape.
const MaxDimensions = 16

// Tensor is a named array, row-major. Data is a slice of the Go type of its Type: []bool, []uint8
// to []int64, []float32, []float64, or []string for BYTES.
type Tensor struct {
	Name  string
	Type  Type
	Shape []int64
	Data  any
}

// Port is what a model takes or gives: a tensor whose dimensions of -1 may have any size.
type Port struct {
	Name  string
	Type  Type
	Shape []int64
}

// Width is how many values a row of the port has, or -1 where that is open.
func (p Port) Width() int {
	n := int64(1)
	for _, d := range p.Shape[min(1, len(p.Shape)):] {
		if d < 0 {
			return -1
		}
		n *= d
	}
	return int(n)
}

// Signature is what a model takes and gives, and what computes it.
type Signature struct {
	Platform        string
	Inputs, Outputs []Port
}

// Answer is what a model says to one request.
type Answer struct {
	Tensors []Tensor
	Err     error
}

// Volume is the product of a shape's sizes, or -1 where one is negative or it does not fit.
func Volume(shape []int64) int {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || d > 0 && n > math.MaxInt32*64/d {
			return -1
		}
		n *= d
	}
	return int(n)
}

// Rows is the size of the first dimension; a tensor without dimensions has one row.
func (t Tensor) Rows() int {
	if len(t.Shape) == 0 {
		return 1
	}
	return int(t.Shape[0])
}

// Len is the number of values.
func (t Tensor) Len() int {
	switch d := t.Data.(type) {
	case []float32:
		return len(d)
	case []float64:
		return len(d)
	case []string:
		return len(d)
	case []bool:
		return len(d)
	case []uint8:
		return len(d)
	case []uint16:
		return len(d)
	case []uint32:
		return len(d)
	case []uint64:
		return len(d)
	case []int8:
		return len(d)
	case []int16:
		return len(d)
	case []int32:
		return len(d)
	case []int64:
		return len(d)
	}
	return 0
}

// Make returns a slice of a type with so many values; nil if the type is not among them.
func Make(t Type, n int) any {
	switch t {
	case Bool:
		return make([]bool, n)
	case Uint8:
		return make([]uint8, n)
	case Uint16:
		return make([]uint16, n)
	case Uint32:
		return make([]uint32, n)
	case Uint64:
		return make([]uint64, n)
	case Int8:
		return make([]int8, n)
	case Int16:
		return make([]int16, n)
	case Int32:
		return make([]int32, n)
	case Int64:
		return make([]int64, n)
	case Float32:
		return make([]float32, n)
	case Float64:
		return make([]float64, n)
	case Bytes:
		return make([]string, n)
	}
	return nil
}

// Size is how many bytes a value takes; 0 where that differs (BYTES) or the type is unknown.
func (t Type) Size() int {
	switch t {
	case Bool, Uint8, Int8:
		return 1
	case Uint16, Int16:
		return 2
	case Uint32, Int32, Float32:
		return 4
	case Uint64, Int64, Float64:
		return 8
	}
	return 0
}

// Known reports whether the type is one of those above.
func (t Type) Known() bool { return t == Bytes || t.Size() > 0 }

// Check says what is wrong with a tensor in itself.
func (t Tensor) Check() error {
	if !t.Type.Known() {
		return fault.New(fault.Invalid, "tensor %q: datatype %q is not known here: give one of BOOL, UINT8 to UINT64, INT8 to INT64, FP32, FP64, BYTES", t.Name, t.Type)
	}
	if len(t.Shape) > MaxDimensions {
		return fault.New(fault.Invalid, "tensor %q: a shape of %d dimensions: at most %d", t.Name, len(t.Shape), MaxDimensions)
	}
	if n := Volume(t.Shape); n < 0 || n != t.Len() {
		return fault.New(fault.Invalid, "tensor %q: %d values for the shape %v", t.Name, t.Len(), t.Shape)
	}
	return nil
}

// Floats are the values as float32, whatever number they are.
func (t Tensor) Floats() ([]float32, error) {
	switch d := t.Data.(type) {
	case []float32:
		return d, nil
	case []float64:
		return convert[float64, float32](d), nil
	case []uint8:
		return convert[uint8, float32](d), nil
	case []uint16:
		return convert[uint16, float32](d), nil
	case []uint32:
		return convert[uint32, float32](d), nil
	case []uint64:
		return convert[uint64, float32](d), nil
	case []int8:
		return convert[int8, float32](d), nil
	case []int16:
		return convert[int16, float32](d), nil
	case []int32:
		return convert[int32, float32](d), nil
	case []int64:
		return convert[int64, float32](d), nil
	}
	return nil, fault.New(fault.Invalid, "tensor %q: %s are no numbers: give FP32", t.Name, t.Type)
}

// Doubles are the values as float64, whatever number they are.
func (t Tensor) Doubles() ([]float64, error) {
	switch d := t.Data.(type) {
	case []float64:
		return d, nil
	case []float32:
		return convert[float32, float64](d), nil
	case []int64:
		return convert[int64, float64](d), nil
	case []int32:
		return convert[int32, float64](d), nil
	case []uint64:
		return convert[uint64, float64](d), nil
	}
	f, err := t.Floats() // the smaller integers fit
	if err != nil {
		return nil, fault.New(fault.Invalid, "tensor %q: %s are no numbers: give FP64", t.Name, t.Type)
	}
	if _, exact := t.Data.([]uint32); exact {
		return convert[uint32, float64](t.Data.([]uint32)), nil
	}
	return convert[float32, float64](f), nil
}

func convert[F, T uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64](from []F) []T {
	to := make([]T, len(from))
	for i, v := range from {
		to[i] = T(v)
	}
	return to
}

// Match puts the tensors of a request in the order of a model's ports, and says what does not fit:
// a missing or unknown name, another shape, different numbers of rows. rows is that number. Types
// are for the model to convert or refuse.
func Match(ports []Port, tensors []Tensor) (ordered []Tensor, rows int, err error) {
	ordered = make([]Tensor, len(ports))
	rows = -1
	for i, p := range ports {
		at := slices.IndexFunc(tensors, func(t Tensor) bool { return t.Name == p.Name })
		if at < 0 {
			return nil, 0, fault.New(fault.Invalid, "input %q is missing: the model takes %s", clip(p.Name), names(ports))
		}
		t := tensors[at]
		if err := p.fits(&t); err != nil {
			return nil, 0, err
		}
		if ordered[i] = t; rows < 0 {
			rows = t.Rows()
		} else if rows != t.Rows() {
			return nil, 0, fault.New(fault.Invalid, "input %q has %d rows, and %q has %d", clip(p.Name), t.Rows(), clip(ports[0].Name), rows)
		}
	}
	if len(tensors) != len(ports) {
		for _, t := range tensors {
			if !slices.ContainsFunc(ports, func(p Port) bool { return p.Name == t.Name }) {
				return nil, 0, fault.New(fault.Invalid, "input %q is none of the model's: it takes %s", clip(t.Name), names(ports))
			}
		}
		return nil, 0, fault.New(fault.Invalid, "%d inputs, and the model takes %d: one is given twice", len(tensors), len(ports))
	}
	if rows < 1 {
		return nil, 0, fault.New(fault.Invalid, "the request has no rows")
	}
	return ordered, rows, nil
}

// fits compares shapes. A row of one value may be written without its second dimension, and with
// it; a row that has several may be flat.
func (p Port) fits(t *Tensor) error {
	want, got := p.Shape, t.Shape
	same := len(want) == len(got)
	for i := range want {
		same = same && (want[i] < 0 || want[i] == got[i])
	}
	if same {
		return nil
	}
	if len(got) > 0 && len(want) > 0 && want[0] < 0 && p.Width() >= 0 && Volume(got[1:]) == p.Width() {
		t.Shape = append([]int64{got[0]}, want[1:]...)
		return nil
	}
	return fault.New(fault.Invalid, "input %q has the shape %v, and the model takes %v", clip(p.Name), got, want)
}

func names(ports []Port) string {
	text := ""
	for i, p := range ports {
		if i == 8 {
			return text + ", …"
		}
		if i > 0 {
			text += ", "
		}
		text += clip(p.Name)
	}
	return text
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// Whole is whole numbers as values of a type, refusing what it cannot hold.
func Whole(name string, t Type, values []float64) (any, error) {
	switch t {
	case Bool:
		out := make([]bool, len(values))
		for i, v := range values {
			if v != 0 && v != 1 {
				return nil, outOf(name, t, v)
			}
			out[i] = v == 1
		}
		return out, nil
	case Uint8:
		return whole[uint8](name, t, values, 0, math.MaxUint8)
	case Uint16:
		return whole[uint16](name, t, values, 0, math.MaxUint16)
	case Uint32:
		return whole[uint32](name, t, values, 0, math.MaxUint32)
	case Uint64:
		return whole[uint64](name, t, values, 0, 1<<53)
	case Int8:
		return whole[int8](name, t, values, math.MinInt8, math.MaxInt8)
	case Int16:
		return whole[int16](name, t, values, math.MinInt16, math.MaxInt16)
	case Int32:
		return whole[int32](name, t, values, math.MinInt32, math.MaxInt32)
	case Int64:
		return whole[int64](name, t, values, -1<<53, 1<<53)
	}
	return nil, fault.New(fault.Invalid, "input %q: rows of %s are not known here: ask by the v2 protocol", clip(name), t)
}

func whole[T uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64](name string, t Type, values []float64, least, most float64) (any, error) {
	out := make([]T, len(values))
	for i, v := range values {
		if v < least || v > most || v != math.Trunc(v) {
			return nil, outOf(name, t, v)
		}
		out[i] = T(v)
	}
	return out, nil
}

func outOf(name string, t Type, v float64) error {
	return fault.New(fault.Invalid, "input %q: %v is out of the range of %s, or not whole", clip(name), v, t)
}
