// Package native serves the networks that Clary trains. Rows are computed by float32 kernels in
// this process; a model with a transform takes raw columns, as they were before the preparation.
package native

import (
	"cmp"
	"context"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
	"github.com/clary-ml/clary/trainer/inference"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/table"
)

// Names of the tensors.
const (
	Input         = "input"
	Label         = "label"
	Probabilities = "probabilities"
	Value         = "value"
)

// Engine computes a model's answers.
type Engine struct {
	model     *inference.Model
	signature tensor.Signature
	missing   *table.Missing // texts of raw cells
}

// Open loads a model from its folder.
func Open(dir string, b network.BLAS) (*Engine, error) {
	m, err := inference.Open(dir, b)
	if err != nil {
		return nil, err
	}
	e := &Engine{model: m, signature: tensor.Signature{Platform: m.Framework}}
	if t := m.Learned(); t != nil {
		e.missing = table.NewMissing(t.Missing)
		for _, f := range t.Input {
			e.signature.Inputs = append(e.signature.Inputs, tensor.Port{Name: f.Name, Type: typeOf(f.Kind), Shape: []int64{-1}})
		}
	} else {
		shape := []int64{-1}
		for _, d := range m.Plan.Input {
			shape = append(shape, int64(d))
		}
		e.signature.Inputs = []tensor.Port{{Name: Input, Type: tensor.Float32, Shape: shape}}
	}
	if classes := m.Classes(); classes != nil {
		e.signature.Outputs = []tensor.Port{
			{Name: Label, Type: tensor.Bytes, Shape: []int64{-1}},
			{Name: Probabilities, Type: tensor.Float32, Shape: []int64{-1, int64(len(classes))}},
		}
	} else {
		e.signature.Outputs = []tensor.Port{{Name: Value, Type: tensor.Float32, Shape: []int64{-1}}}
	}
	return e, nil
}

func typeOf(k table.Kind) tensor.Type {
	if k == table.Number {
		return tensor.Float64
	}
	return tensor.Bytes
}

// Signature is what the model takes and gives.
func (e *Engine) Signature() tensor.Signature { return e.signature }

// Job is the name of the job that made the model; it may be empty.
func (e *Engine) Job() string { return e.model.Job }

// Missing reports whether a text means that a raw cell is missing.
func (e *Engine) Missing(text string) bool { return e.missing.Has(text) }

// Close has nothing to free.
func (e *Engine) Close() error { return nil }

// chunk is how many rows are computed before it is asked whether anybody still waits for them.
const chunk = 64

// Run answers requests, which are in the order and shape of the signature, together. What is wrong
// with one fails that one alone. It gives up soon after ctx ends.
func (e *Engine) Run(ctx context.Context, requests [][]tensor.Tensor) []tensor.Answer {
	answers := make([]tensor.Answer, len(requests))
	width := e.model.Width()
	var features []float32
	if len(requests) > 1 {
		features = make([]float32, 0, width*len(requests))
	}
	ends := make([]int, len(requests))
	for i, request := range requests {
		at := len(features)
		if features, answers[i].Err = e.append(features, request); answers[i].Err != nil {
			features = features[:at]
		}
		ends[i] = len(features)
	}
	outputs, err := e.outputs(ctx, features)
	if outputs == nil {
		for i := range answers {
			answers[i].Err = cmp.Or(answers[i].Err, err)
		}
		return answers
	}
	begin := 0
	for i := range requests {
		from, to := begin/width*e.model.Plan.Outputs, ends[i]/width*e.model.Plan.Outputs
		begin = ends[i]
		switch own := outputs[from:to]; {
		case answers[i].Err != nil:
		case err != nil && !network.Finite(own):
			answers[i].Err = err
		default:
			answers[i].Tensors = e.answer(own)
		}
	}
	return answers
}

// outputs are those of all rows. An error beside them is of some that are not finite; without them
// nothing could be computed, or ctx has ended.
func (e *Engine) outputs(ctx context.Context, features []float32) (out []float32, notFinite error) {
	width := e.model.Width()
	out = make([]float32, 0, len(features)/width*e.model.Plan.Outputs)
	for rows := range slices.Chunk(features, chunk*width) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var err error
		if out, err = e.model.Outputs(rows, out); err != nil && !fault.Is(err, fault.Invalid) {
			return nil, err
		}
		notFinite = cmp.Or(notFinite, err)
	}
	return out, notFinite
}

// append adds a request's rows to the features.
func (e *Engine) append(features []float32, request []tensor.Tensor) ([]float32, error) {
	if e.model.Learned() != nil {
		return e.appendRaw(features, request)
	}
	values, err := request[0].Floats()
	if err != nil {
		return features, err
	}
	width, scale := e.model.Width(), 1/e.model.Scale()
	for i, v := range values {
		v *= scale
		if v-v != 0 {
			return features, fault.New(fault.Invalid, "row %d, value %d is %v: give finite numbers", i/width+1, i%width+1, values[i])
		}
		features = append(features, v)
	}
	return features, nil
}

func (e *Engine) appendRaw(features []float32, request []tensor.Tensor) ([]float32, error) {
	b := table.Batch{Rows: request[0].Rows()}
	for i, field := range e.model.Learned().Input {
		c := table.Column{Field: field}
		if field.Kind == table.Number {
			values, err := request[i].Doubles()
			if err != nil {
				return features, err
			}
			c.Numbers = slices.Clone(values) // the transform writes there
		} else {
			texts, ok := request[i].Data.([]string)
			if !ok {
				return features, fault.New(fault.Invalid, "input %q is text: give BYTES, not %s", field.Name, request[i].Type)
			}
			c.Texts = slices.Clone(texts)
			for row, text := range texts {
				if e.missing.Has(text) {
					c.Texts[row] = ""
				}
			}
		}
		b.Columns = append(b.Columns, c)
	}
	return e.model.AppendRows(features, &b)
}

// answer is what the plain outputs of some rows mean.
func (e *Engine) answer(outputs []float32) []tensor.Tensor {
	rows := len(outputs) / e.model.Plan.Outputs
	classes := e.model.Classes()
	if classes == nil {
		return []tensor.Tensor{{Name: Value, Type: tensor.Float32, Shape: []int64{int64(rows)}, Data: slices.Clone(outputs)}}
	}
	labels, probabilities := make([]string, rows), make([]float32, 0, rows*len(classes))
	for row := range rows {
		class, p := e.model.Answer(outputs[row*e.model.Plan.Outputs : (row+1)*e.model.Plan.Outputs])
		labels[row] = classes[class]
		for _, v := range p {
			probabilities = append(probabilities, float32(v))
		}
	}
	return []tensor.Tensor{
		{Name: Label, Type: tensor.Bytes, Shape: []int64{int64(rows)}, Data: labels},
		{Name: Probabilities, Type: tensor.Float32, Shape: []int64{int64(rows), int64(len(classes))}, Data: probabilities},
	}
}
