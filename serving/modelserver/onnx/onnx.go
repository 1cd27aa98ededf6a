// Package onnx serves ONNX models by onnxruntime's shared library, which is looked for when a model
// is opened: without it a server of other models is none the worse.
package onnx

import (
	"context"
	"errors"
	"runtime"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// Engine runs one model. Any number of goroutines may use it at once.
type Engine struct {
	lib       *library
	env       handle
	session   handle
	memory    handle
	signature tensor.Signature
	batches   bool // the first dimension of all inputs and outputs is open
}

// types are the element types by the library's numbers.
var types = map[uint32]tensor.Type{
	1: tensor.Float32, 2: tensor.Uint8, 3: tensor.Int8, 4: tensor.Uint16, 5: tensor.Int16, 6: tensor.Int32, 7: tensor.Int64,
	8: tensor.Bytes, 9: tensor.Bool, 11: tensor.Float64, 12: tensor.Uint32, 13: tensor.Uint64,
}

func numberOf(t tensor.Type) uintptr {
	for n, other := range types {
		if other == t {
			return uintptr(n)
		}
	}
	return 0
}

// severity is that of errors: warnings are the library's own affair.
const severity = 3

// Open loads a model from its file. library is the path of onnxruntime's; "" looks where the system
// has it. threads are those of one run.
func Open(file, path string, threads int) (e *Engine, err error) {
	lib, err := find(path)
	if err != nil {
		return nil, err
	}
	e = &Engine{lib: lib}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
			e = nil
		}
	}()
	var pin runtime.Pinner
	defer pin.Unpin()
	if e.env, err = lib.get(createEnv, severity, cString(&pin, "clary")); err != nil {
		return e, err
	}
	options, err := lib.get(createSessionOptions)
	if err != nil {
		return e, err
	}
	defer lib.release(releaseSessionOptions, options)
	if err := lib.call(setIntraOpNumThreads, options, uintptr(max(threads, 1))); err != nil {
		return e, err
	}
	if e.session, err = lib.get(createSession, e.env, cString(&pin, file), options); err != nil {
		return e, fault.New(fault.Invalid, "model %s: %w", file, err)
	}
	const arena, usual = 1, 0 // OrtArenaAllocator, OrtMemTypeDefault
	if e.memory, err = lib.get(createCPUMemoryInfo, arena, usual); err != nil {
		return e, err
	}
	if err := e.describe(); err != nil {
		return e, fault.New(fault.Invalid, "model %s: %w", file, err)
	}
	return e, nil
}

// Close frees the model. Nobody may use it then.
func (e *Engine) Close() error {
	e.lib.release(releaseMemoryInfo, e.memory)
	e.lib.release(releaseSession, e.session)
	e.lib.release(releaseEnv, e.env)
	e.memory, e.session, e.env = 0, 0, 0
	return nil
}

// Library names the library and its version.
func (e *Engine) Library() string { return e.lib.String() }

// Signature is what the model takes and gives.
func (e *Engine) Signature() tensor.Signature { return e.signature }

// describe reads the signature. Outputs that are no tensors (sequences of maps, which scikit-learn's
// converter makes unless told otherwise) are left out.
func (e *Engine) describe() (err error) {
	e.signature.Platform = "onnxruntime_onnx"
	if e.signature.Inputs, err = e.ports(sessionGetInputCount, sessionGetInputName, sessionGetInputTypeInfo); err != nil {
		return err
	}
	if e.signature.Outputs, err = e.ports(sessionGetOutputCount, sessionGetOutputName, sessionGetOutputTypeInfo); err != nil {
		return err
	}
	e.batches = true
	for _, p := range e.signature.Inputs {
		if p.Type == "" {
			return fault.New(fault.Invalid, "its input %q is no tensor of a known type", p.Name)
		}
		e.batches = e.batches && len(p.Shape) > 0 && p.Shape[0] < 0
	}
	e.signature.Outputs = slices.DeleteFunc(e.signature.Outputs, func(p tensor.Port) bool { return p.Type == "" })
	for _, p := range e.signature.Outputs {
		e.batches = e.batches && len(p.Shape) > 0 && p.Shape[0] < 0
	}
	if len(e.signature.Outputs) == 0 || len(e.signature.Inputs) == 0 {
		return fault.New(fault.Invalid, "it has no input or output that is a tensor of a known type")
	}
	return nil
}

func (e *Engine) ports(count, name, info int) ([]tensor.Port, error) {
	n, err := e.lib.get(count, e.session)
	if err != nil {
		return nil, err
	}
	allocator, err := e.lib.get(getAllocatorWithDefaultOptions)
	if err != nil {
		return nil, err
	}
	ports := make([]tensor.Port, n)
	for i := range ports {
		text, err := e.lib.get(name, e.session, uintptr(i), allocator)
		if err != nil {
			return nil, err
		}
		ports[i].Name = goString(text)
		if err := e.lib.call(allocatorFree, allocator, text); err != nil {
			return nil, err
		}
		kind, err := e.lib.get(info, e.session, uintptr(i))
		if err != nil {
			return nil, err
		}
		of, err := e.lib.get(castTypeInfoToTensorInfo, kind)
		if err == nil && of != 0 {
			ports[i].Type, ports[i].Shape, err = e.shape(of)
		}
		e.lib.release(releaseTypeInfo, kind)
		if err != nil {
			return nil, err
		}
	}
	return ports, nil
}

// shape reads a tensor's type, "" if it is not known here, and its shape.
func (e *Engine) shape(info handle) (tensor.Type, []int64, error) {
	number, err := e.lib.get(getTensorElementType, info)
	if err != nil {
		return "", nil, err
	}
	n, err := e.lib.get(getDimensionsCount, info)
	if err != nil || n > tensor.MaxDimensions {
		return "", nil, errors.Join(err, fault.New(fault.Invalid, "a tensor of %d dimensions", n))
	}
	shape := make([]int64, n)
	if n > 0 {
		var pin runtime.Pinner
		defer pin.Unpin()
		err = e.lib.call(getDimensions, info, at(&pin, &shape[0]), n)
	}
	for i, d := range shape {
		if d < 0 {
			shape[i] = -1
		}
	}
	return types[uint32(number)], shape, err
}

// Run answers requests: together, where the model takes any number of rows and they have like
// shapes, or one after another.
func (e *Engine) Run(ctx context.Context, requests [][]tensor.Tensor) []tensor.Answer {
	answers := make([]tensor.Answer, len(requests))
	for i := range requests {
		requests[i], answers[i].Err = e.convert(requests[i])
	}
	if e.batches && len(requests) > 1 && e.together(requests, answers) {
		return answers
	}
	for i, request := range requests {
		if answers[i].Err == nil {
			answers[i].Err = context.Cause(ctx)
		}
		if answers[i].Err == nil {
			answers[i].Tensors, answers[i].Err = e.run(request)
		}
	}
	return answers
}

// together runs all in one, and reports whether that could be done.
func (e *Engine) together(requests [][]tensor.Tensor, answers []tensor.Answer) bool {
	for _, a := range answers {
		if a.Err != nil {
			return false
		}
	}
	joined := make([]tensor.Tensor, len(e.signature.Inputs))
	for i := range joined {
		parts := make([]tensor.Tensor, len(requests))
		for j := range requests {
			parts[j] = requests[j][i]
		}
		var ok bool
		if joined[i], ok = tensor.Join(parts); !ok {
			return false
		}
	}
	outputs, err := e.run(joined)
	if err != nil {
		return false // one request may be at fault: each is tried alone
	}
	for _, out := range outputs {
		if out.Rows() != joined[0].Rows() {
			return false
		}
	}
	from := 0
	for i, request := range requests {
		to := from + request[0].Rows()
		for _, out := range outputs {
			answers[i].Tensors = append(answers[i].Tensors, out.Cut(from, to))
		}
		from = to
	}
	return true
}

// convert gives a request's numbers the types that the model takes.
func (e *Engine) convert(request []tensor.Tensor) ([]tensor.Tensor, error) {
	out := slices.Clone(request)
	for i, p := range e.signature.Inputs {
		t := &out[i]
		if t.Type == p.Type {
			continue
		}
		var err error
		switch p.Type {
		case tensor.Float32:
			t.Data, err = t.Floats()
		case tensor.Float64:
			t.Data, err = t.Doubles()
		default:
			err = fault.New(fault.Invalid, "input %q is %s, and the model takes %s", p.Name, t.Type, p.Type)
		}
		if err != nil {
			return out, err
		}
		t.Type = p.Type
	}
	return out, nil
}

// run computes one set of inputs.
func (e *Engine) run(inputs []tensor.Tensor) (outputs []tensor.Tensor, err error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	given, asked := make([]uintptr, len(inputs)), make([]uintptr, len(e.signature.Outputs))
	values, answers := make([]handle, len(inputs)), make([]handle, len(e.signature.Outputs))
	defer func() {
		for _, v := range append(values, answers...) {
			e.lib.release(releaseValue, v)
		}
	}()
	for i, t := range inputs {
		given[i] = cString(&pin, e.signature.Inputs[i].Name)
		if values[i], err = e.value(&pin, t); err != nil {
			return nil, err
		}
	}
	for i, p := range e.signature.Outputs {
		asked[i] = cString(&pin, p.Name)
	}
	err = e.lib.call(runSession, e.session, 0, at(&pin, &given[0]), at(&pin, &values[0]), uintptr(len(values)),
		at(&pin, &asked[0]), uintptr(len(asked)), at(&pin, &answers[0]))
	if err != nil {
		return nil, err
	}
	for i, p := range e.signature.Outputs {
		t, err := e.read(answers[i])
		if err != nil {
			return nil, fault.New(fault.Internal, "output %q: %w", p.Name, err)
		}
		t.Name = p.Name
		outputs = append(outputs, t)
	}
	return outputs, nil
}
