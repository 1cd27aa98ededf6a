package tensor

import (
	"encoding/binary"
	"math"

	"github.com/clary-ml/clary/internal/fault"
)

// FromRaw makes a tensor of its values as bytes: little-endian, row-major, each text after its
// length in four bytes.
func FromRaw(name string, t Type, shape []int64, raw []byte) (Tensor, error) {
	out := Tensor{Name: name, Type: t, Shape: shape}
	if !t.Known() || len(shape) > MaxDimensions {
		return out, out.Check()
	}
	n := Volume(shape)
	if n < 0 {
		return out, fault.New(fault.Invalid, "tensor %q: the shape %v cannot be", clip(name), shape)
	}
	if t == Bytes {
		texts, err := rawTexts(raw, n)
		if err != nil {
			return out, fault.New(fault.Invalid, "tensor %q: %w", clip(name), err)
		}
		out.Data = texts
		return out, nil
	}
	if n > math.MaxInt/8 || len(raw) != n*t.Size() {
		return out, fault.New(fault.Invalid, "tensor %q: %d bytes for the shape %v of %s: it takes %d", clip(name), len(raw), shape, t, n*t.Size())
	}
	out.Data = Make(t, n)
	if n == 0 {
		return out, nil
	}
	if _, err := binary.Decode(raw, binary.LittleEndian, out.Data); err != nil {
		return out, fault.New(fault.Internal, "read tensor %q: %w", name, err)
	}
	return out, nil
}

func rawTexts(raw []byte, n int) ([]string, error) {
	if n > len(raw)/4 {
		return nil, fault.New(fault.Invalid, "%d bytes are too few for %d texts", len(raw), n)
	}
	texts := make([]string, n)
	for i := range texts {
		if len(raw) < 4 {
			return nil, fault.New(fault.Invalid, "text %d of %d is cut off", i+1, n)
		}
		size := binary.LittleEndian.Uint32(raw)
		if raw = raw[4:]; uint64(size) > uint64(len(raw)) {
			return nil, fault.New(fault.Invalid, "text %d of %d says that it has %d bytes, and %d are left", i+1, n, size, len(raw))
		}
		texts[i], raw = string(raw[:size]), raw[size:]
	}
	if len(raw) > 0 {
		return nil, fault.New(fault.Invalid, "%d bytes are left behind %d texts", len(raw), n)
	}
	return texts, nil
}

// AppendRaw writes the values as FromRaw reads them.
func (t Tensor) AppendRaw(to []byte) ([]byte, error) {
	if texts, ok := t.Data.([]string); ok {
		for _, text := range texts {
			to = binary.LittleEndian.AppendUint32(to, uint32(len(text)))
			to = append(to, text...)
		}
		return to, nil
	}
	to, err := binary.Append(to, binary.LittleEndian, t.Data)
	if err != nil {
		return to, fault.New(fault.Internal, "write tensor %q: %w", t.Name, err)
	}
	return to, nil
}
