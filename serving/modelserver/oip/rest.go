// Package oip reads and writes the messages of the Open Inference Protocol v2: over REST, where
// tensors are JSON or, by the binary tensor extension, bytes behind it, and over gRPC.
package oip

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/payload"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// LengthHeader says how long the JSON is that bytes follow.
const LengthHeader = "Inference-Header-Content-Length"

// Request is what is asked of a model.
type Request struct {
	ID     string
	Inputs []tensor.Tensor
	// Outputs are those wanted; none is all.
	Outputs []Output
	// Binary is how outputs go that do not say it themselves.
	Binary bool
}

// Output is a tensor that is wanted, as JSON or as bytes.
type Output struct {
	Name   string
	Binary *bool
}

// Response is a model's answer.
type Response struct {
	Model, Version, ID string
	Outputs            []tensor.Tensor
}

type jsonRequest struct {
	ID         string                    `json:"id"`
	Parameters map[string]jsontext.Value `json:"parameters"`
	Inputs     []jsonTensor              `json:"inputs"`
	Outputs    []struct {
		Name       string                    `json:"name"`
		Parameters map[string]jsontext.Value `json:"parameters"`
	} `json:"outputs"`
}

type jsonTensor struct {
	Name       string                    `json:"name"`
	Shape      []int64                   `json:"shape"`
	Datatype   tensor.Type               `json:"datatype"`
	Parameters map[string]jsontext.Value `json:"parameters"`
	Data       jsontext.Value            `json:"data"`
}

// ParseRequest reads a body; length is that of its JSON by the header, or "" where it is all JSON.
func ParseRequest(body []byte, length string) (r Request, err error) {
	text, binary := body, []byte(nil)
	if length != "" {
		n, err := strconv.Atoi(length)
		if err != nil || n < 0 || n > len(body) {
			return r, fault.New(fault.Invalid, "%s is %q: give the bytes of JSON, at most %d", LengthHeader, clip(length), len(body))
		}
		text, binary = body[:n], body[n:]
	}
	var j jsonRequest
	if err := json.Unmarshal(text, &j); err != nil {
		return r, badJSON(err)
	}
	r.ID = j.ID
	if r.Binary, err = flag(j.Parameters, "binary_data_output"); err != nil {
		return r, err
	}
	for i := range j.Inputs {
		var t tensor.Tensor
		if t, binary, err = j.Inputs[i].tensor(binary); err != nil {
			return r, err
		}
		r.Inputs = append(r.Inputs, t)
	}
	if len(binary) > 0 {
		return r, fault.New(fault.Invalid, "%d bytes behind the JSON belong to no input: give each its binary_data_size", len(binary))
	}
	for _, o := range j.Outputs {
		out := Output{Name: o.Name}
		if _, wanted := o.Parameters["classification"]; wanted {
			return r, fault.New(fault.Invalid, "output %q: the classification extension is not known here: ask for the output as it is", clip(o.Name))
		}
		if _, said := o.Parameters["binary_data"]; said {
			binary, err := flag(o.Parameters, "binary_data")
			if err != nil {
				return r, err
			}
			out.Binary = &binary
		}
		r.Outputs = append(r.Outputs, out)
	}
	return r, nil
}

func badJSON(err error) error {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return fault.New(fault.Invalid, "the request: %s: %q does not fit", semantic.JSONPointer, clip(string(semantic.JSONValue)))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "the JSON ends too early")
	}
	return fault.New(fault.Invalid, "the request is not JSON: %w", err)
}

func flag(parameters map[string]jsontext.Value, name string) (bool, error) {
	switch value := string(parameters[name]); value {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, fault.New(fault.Invalid, "parameter %s is %s: give true or false", name, clip(value))
	}
}

// tensor reads the values from JSON or from the front of the bytes, of which it returns the rest.
func (j *jsonTensor) tensor(binary []byte) (tensor.Tensor, []byte, error) {
	if size, said := j.Parameters["binary_data_size"]; said {
		n, err := strconv.Atoi(string(size))
		if err != nil || n < 0 || n > len(binary) {
			return tensor.Tensor{}, nil, fault.New(fault.Invalid, "input %q: binary_data_size is %s, and %d bytes are left behind the JSON", clip(j.Name), clip(string(size)), len(binary))
		}
		t, err := tensor.FromRaw(j.Name, j.Datatype, j.Shape, binary[:n])
		return t, binary[n:], err
	}
	t := tensor.Tensor{Name: j.Name, Type: j.Datatype, Shape: j.Shape}
	if !t.Type.Known() || len(t.Shape) > tensor.MaxDimensions {
		return t, nil, t.Check()
	}
	if j.Data.Kind() != '[' {
		return t, nil, fault.New(fault.Invalid, "input %q has no data: give a list, or binary_data_size and bytes behind the JSON", clip(j.Name))
	}
	n := tensor.Volume(t.Shape)
	if n < 0 || n > len(j.Data) { // each value takes a byte at least
		return t, nil, fault.New(fault.Invalid, "input %q: the data is too short for the shape %v", clip(j.Name), t.Shape)
	}
	t.Data = tensor.Make(t.Type, n)
	f := filler{t: t, d: jsontext.NewDecoder(bytes.NewBuffer(j.Data))}
	if err := f.list(); err != nil {
		return t, nil, fault.New(fault.Invalid, "input %q: %w", clip(j.Name), err)
	}
	if f.at != n {
		return t, nil, fault.New(fault.Invalid, "input %q has %d values for the shape %v", clip(j.Name), f.at, t.Shape)
	}
	return t, binary, nil
}

// filler reads nested lists of values into a tensor.
type filler struct {
	t  tensor.Tensor
	d  *jsontext.Decoder
	at int
}

func (f *filler) list() error {
	if _, err := f.d.ReadToken(); err != nil {
		return err
	}
	for f.d.PeekKind() != ']' {
		if f.d.PeekKind() == '[' {
			if err := f.list(); err != nil {
				return err
			}
			continue
		}
		if f.at == f.t.Len() {
			return fault.New(fault.Invalid, "has more values than the shape %v", f.t.Shape)
		}
		if err := f.value(); err != nil {
			return err
		}
		f.at++
	}
	_, err := f.d.ReadToken()
	return err
}

func (f *filler) value() error {
	if texts, ok := f.t.Data.([]string); ok {
		if f.d.PeekKind() != '"' {
			return fault.New(fault.Invalid, "value %d is no string", f.at+1)
		}
		token, err := f.d.ReadToken()
		if err == nil {
			texts[f.at] = token.String()
		}
		return err
	}
	value, err := f.d.ReadValue()
	if err != nil {
		return err
	}
	text := unsafe.String(unsafe.SliceData(value), len(value))
	if err := set(f.t.Data, f.at, text); err != nil {
		return fault.New(fault.Invalid, "value %d, %s, is no %s", f.at+1, clip(string(value)), f.t.Type)
	}
	return nil
}

// set parses a number or a truth value.
func set(data any, i int, text string) (err error) {
	switch d := data.(type) {
	case []float32:
		var v float64
		v, err = strconv.ParseFloat(text, 32)
		d[i] = float32(v)
	case []float64:
		d[i], err = strconv.ParseFloat(text, 64)
	case []bool:
		if d[i] = text == "true"; text != "true" && text != "false" {
			err = strconv.ErrSyntax
		}
	case []int8:
		err = setInt(d, i, text, 8)
	case []int16:
		err = setInt(d, i, text, 16)
	case []int32:
		err = setInt(d, i, text, 32)
	case []int64:
		err = setInt(d, i, text, 64)
	case []uint8:
		err = setUint(d, i, text, 8)
	case []uint16:
		err = setUint(d, i, text, 16)
	case []uint32:
		err = setUint(d, i, text, 32)
	case []uint64:
		err = setUint(d, i, text, 64)
	}
	return err
}

func setInt[T int8 | int16 | int32 | int64](d []T, i int, text string, bits int) error {
	v, err := strconv.ParseInt(text, 10, bits)
	d[i] = T(v)
	return err
}

func setUint[T uint8 | uint16 | uint32 | uint64](d []T, i int, text string, bits int) error {
	v, err := strconv.ParseUint(text, 10, bits)
	d[i] = T(v)
	return err
}

// Pick leaves the outputs that a request wants, in its order, and says which go as bytes.
func (r *Request) Pick(outputs []tensor.Tensor) (picked []tensor.Tensor, binary []bool, err error) {
	if len(r.Outputs) == 0 {
		return outputs, slices.Repeat([]bool{r.Binary}, len(outputs)), nil
	}
	for _, o := range r.Outputs {
		at := slices.IndexFunc(outputs, func(t tensor.Tensor) bool { return t.Name == o.Name })
		if at < 0 {
			return nil, nil, fault.New(fault.Invalid, "output %q is none of the model's", clip(o.Name))
		}
		picked, binary = append(picked, outputs[at]), append(binary, o.Binary != nil && *o.Binary || o.Binary == nil && r.Binary)
	}
	return picked, binary, nil
}

// Encode writes a response. With bytes behind the JSON, length is that of the JSON; else it is 0.
func (r *Response) Encode(binary []bool) (body []byte, length int, err error) {
	body = append(body, `{"model_name":`...)
	body = payload.AppendString(body, r.Model)
	body = payload.AppendString(append(body, `,"model_version":`...), r.Version)
	if r.ID != "" {
		body = payload.AppendString(append(body, `,"id":`...), r.ID)
	}
	body = append(body, `,"outputs":[`...)
	var tail []byte
	for i, t := range r.Outputs {
		if i > 0 {
			body = append(body, ',')
		}
		body = payload.AppendString(append(body, `{"name":`...), t.Name)
		body = append(append(append(body, `,"datatype":"`...), t.Type...), `","shape":[`...)
		for j, d := range t.Shape {
			if j > 0 {
				body = append(body, ',')
			}
			body = strconv.AppendInt(body, d, 10)
		}
		body = append(body, ']')
		if binary[i] {
			at := len(tail)
			if tail, err = t.AppendRaw(tail); err != nil {
				return nil, 0, err
			}
			body = append(body, `,"parameters":{"binary_data_size":`...)
			body = append(strconv.AppendInt(body, int64(len(tail)-at), 10), "}}"...)
			continue
		}
		body = append(body, `,"data":[`...)
		for j := range t.Len() {
			if j > 0 {
				body = append(body, ',')
			}
			body = payload.AppendJSON(body, t, j)
		}
		body = append(body, "]}"...)
	}
	body = append(body, "]}"...)
	if slices.Contains(binary, true) {
		length = len(body)
	}
	return append(body, tail...), length, nil
}

// clip shortens what an error quotes.
func clip(text string) string {
	if len(text) > 40 {
		text = strings.ToValidUTF8(text[:40], "") + "…"
	}
	return text
}
