package oip

import (
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/proto/inference"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// FromProto reads a request that came over gRPC. raw says that its values came as bytes, and so
// should the answer's.
func FromProto(m *inference.ModelInferRequest) (r Request, raw bool, err error) {
	r.ID, raw = m.GetId(), len(m.GetRawInputContents()) > 0
	if raw && len(m.GetRawInputContents()) != len(m.GetInputs()) {
		return r, raw, fault.New(fault.Invalid, "%d raw_input_contents for %d inputs: give one for each, or none", len(m.GetRawInputContents()), len(m.GetInputs()))
	}
	for i, in := range m.GetInputs() {
		var t tensor.Tensor
		if raw {
			if in.GetContents() != nil {
				return r, raw, fault.New(fault.Invalid, "input %q has contents beside raw_input_contents: give one of them", clip(in.GetName()))
			}
			t, err = tensor.FromRaw(in.GetName(), tensor.Type(in.GetDatatype()), in.GetShape(), m.GetRawInputContents()[i])
		} else {
			t = tensor.Tensor{Name: in.GetName(), Type: tensor.Type(in.GetDatatype()), Shape: in.GetShape()}
			t.Data, err = contents(t.Type, in.GetContents())
			if err == nil {
				err = t.Check()
			}
		}
		if err != nil {
			return r, raw, err
		}
		r.Inputs = append(r.Inputs, t)
	}
	for _, out := range m.GetOutputs() {
		if out.GetParameters()["classification"] != nil {
			return r, raw, fault.New(fault.Invalid, "output %q: the classification extension is not known here: ask for the output as it is", clip(out.GetName()))
		}
		r.Outputs = append(r.Outputs, Output{Name: out.GetName()})
	}
	return r, raw, nil
}

// contents are the values in the field of their type.
func contents(t tensor.Type, c *inference.InferTensorContents) (any, error) {
	switch t {
	case tensor.Bool:
		return c.GetBoolContents(), nil
	case tensor.Int8:
		return narrow[int32, int8](t, c.GetIntContents())
	case tensor.Int16:
		return narrow[int32, int16](t, c.GetIntContents())
	case tensor.Int32:
		return c.GetIntContents(), nil
	case tensor.Int64:
		return c.GetInt64Contents(), nil
	case tensor.Uint8:
		return narrow[uint32, uint8](t, c.GetUintContents())
	case tensor.Uint16:
		return narrow[uint32, uint16](t, c.GetUintContents())
	case tensor.Uint32:
		return c.GetUintContents(), nil
	case tensor.Uint64:
		return c.GetUint64Contents(), nil
	case tensor.Float32:
		return c.GetFp32Contents(), nil
	case tensor.Float64:
		return c.GetFp64Contents(), nil
	case tensor.Bytes:
		texts := make([]string, len(c.GetBytesContents()))
		for i, b := range c.GetBytesContents() {
			texts[i] = string(b)
		}
		return texts, nil
	}
	return nil, nil // Check says that the type is unknown
}

func narrow[F int32 | uint32, T int8 | int16 | uint8 | uint16](t tensor.Type, from []F) (any, error) {
	to := make([]T, len(from))
	for i, v := range from {
		if to[i] = T(v); F(to[i]) != v {
			return nil, fault.New(fault.Invalid, "%d is out of the range of %s", v, t)
		}
	}
	return to, nil
}

// Proto is the response for gRPC, its values as bytes or in fields.
func (r *Response) Proto(raw bool) (*inference.ModelInferResponse, error) {
	m := &inference.ModelInferResponse{ModelName: r.Model, ModelVersion: r.Version, Id: r.ID}
	for _, t := range r.Outputs {
		out := &inference.ModelInferResponse_InferOutputTensor{Name: t.Name, Datatype: string(t.Type), Shape: t.Shape}
		m.Outputs = append(m.Outputs, out)
		if !raw {
			out.Contents = fields(t)
			continue
		}
		body, err := t.AppendRaw(nil)
		if err != nil {
			return nil, err
		}
		m.RawOutputContents = append(m.RawOutputContents, body)
	}
	return m, nil
}

func fields(t tensor.Tensor) *inference.InferTensorContents {
	c := &inference.InferTensorContents{}
	switch d := t.Data.(type) {
	case []bool:
		c.BoolContents = d
	case []int8:
		c.IntContents = widen[int8, int32](d)
	case []int16:
		c.IntContents = widen[int16, int32](d)
	case []int32:
		c.IntContents = d
	case []int64:
		c.Int64Contents = d
	case []uint8:
		c.UintContents = widen[uint8, uint32](d)
	case []uint16:
		c.UintContents = widen[uint16, uint32](d)
	case []uint32:
		c.UintContents = d
	case []uint64:
		c.Uint64Contents = d
	case []float32:
		c.Fp32Contents = d
	case []float64:
		c.Fp64Contents = d
	case []string:
		for _, text := range d {
			c.BytesContents = append(c.BytesContents, []byte(text))
		}
	}
	return c
}

func widen[F int8 | int16 | uint8 | uint16, T int32 | uint32](from []F) []T {
	to := make([]T, len(from))
	for i, v := range from {
		to[i] = T(v)
	}
	return to
}
