package onnx

import (
	"runtime"
	"strings"
	"unsafe"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// value makes a tensor of the library's that stands on ours, which the pinner keeps.
func (e *Engine) value(pin *runtime.Pinner, t tensor.Tensor) (handle, error) {
	shape := append([]int64(nil), t.Shape...)
	var dimensions uintptr
	if len(shape) > 0 {
		dimensions = at(pin, &shape[0])
	}
	if texts, ok := t.Data.([]string); ok {
		return e.texts(pin, t.Name, texts, dimensions, uintptr(len(shape)))
	}
	if t.Len() == 0 {
		return 0, fault.New(fault.Invalid, "input %q has no values", t.Name)
	}
	values := address(t.Data)
	pin.Pin(values)
	return e.lib.get(createTensorWithDataAsOrtValue, e.memory, uintptr(values), uintptr(t.Len()*t.Type.Size()), dimensions, uintptr(len(shape)), numberOf(t.Type))
}

// address is where the values of a tensor that is no text begin.
func address(data any) unsafe.Pointer {
	switch d := data.(type) {
	case []float32:
		return unsafe.Pointer(&d[0])
	case []float64:
		return unsafe.Pointer(&d[0])
	case []int64:
		return unsafe.Pointer(&d[0])
	case []int32:
		return unsafe.Pointer(&d[0])
	case []int16:
		return unsafe.Pointer(&d[0])
	case []int8:
		return unsafe.Pointer(&d[0])
	case []uint64:
		return unsafe.Pointer(&d[0])
	case []uint32:
		return unsafe.Pointer(&d[0])
	case []uint16:
		return unsafe.Pointer(&d[0])
	case []uint8:
		return unsafe.Pointer(&d[0])
	case []bool:
		return unsafe.Pointer(&d[0])
	}
	return nil
}

func (e *Engine) texts(pin *runtime.Pinner, name string, texts []string, dimensions, rank uintptr) (handle, error) {
	allocator, err := e.lib.get(getAllocatorWithDefaultOptions)
	if err != nil {
		return 0, err
	}
	v, err := e.lib.get(createTensorAsOrtValue, allocator, dimensions, rank, numberOf(tensor.Bytes))
	if err != nil || len(texts) == 0 {
		return v, err
	}
	places := make([]uintptr, len(texts))
	for i, text := range texts {
		if strings.ContainsRune(text, 0) {
			e.lib.release(releaseValue, v)
			return 0, fault.New(fault.Invalid, "input %q: text %d has a zero byte, which the library cannot take", name, i+1)
		}
		places[i] = cString(pin, text)
	}
	if err := e.lib.call(fillStringTensor, v, at(pin, &places[0]), uintptr(len(places))); err != nil {
		e.lib.release(releaseValue, v)
		return 0, err
	}
	return v, nil
}

// read copies a tensor of the library's.
func (e *Engine) read(v handle) (t tensor.Tensor, err error) {
	info, err := e.lib.get(getTensorTypeAndShape, v)
	if err != nil {
		return t, err
	}
	t.Type, t.Shape, err = e.shape(info)
	e.lib.release(releaseTensorTypeAndShapeInfo, info)
	if err != nil {
		return t, err
	}
	n := tensor.Volume(t.Shape)
	if !t.Type.Known() || n < 0 {
		return t, fault.New(fault.Invalid, "it has an unknown type, or the shape %v", t.Shape)
	}
	if t.Type == tensor.Bytes {
		t.Data, err = e.readTexts(v, n)
		return t, err
	}
	t.Data = tensor.Make(t.Type, n)
	if n == 0 {
		return t, nil
	}
	from, err := e.lib.get(getTensorMutableData, v)
	if err != nil {
		return t, err
	}
	size := n * t.Type.Size()
	copy(unsafe.Slice((*byte)(address(t.Data)), size), unsafe.Slice((*byte)(pointer(from)), size))
	return t, nil
}

func (e *Engine) readTexts(v handle, n int) ([]string, error) {
	texts := make([]string, n)
	length, err := e.lib.get(getStringTensorDataLength, v)
	if err != nil || n == 0 {
		return texts, err
	}
	body, offsets := make([]byte, length+1), make([]uintptr, n)
	var pin runtime.Pinner
	defer pin.Unpin()
	err = e.lib.call(getStringTensorContent, v, at(&pin, &body[0]), length, at(&pin, &offsets[0]), uintptr(n))
	if err != nil {
		return nil, err
	}
	for i, from := range offsets {
		to := length
		if i+1 < n {
			to = offsets[i+1]
		}
		texts[i] = string(body[from:to])
	}
	return texts, nil
}
