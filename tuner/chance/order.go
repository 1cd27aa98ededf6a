package chance

import "math/bits"

// Order is a random order of the numbers below Size, found one at a time: it goes in a
// stride that has no factor in common with Size.
type Order struct {
	Size           uint64
	offset, stride uint64
}

// NewOrder makes the order of a seed and of what it is for. size is 1 to 2^63.
func NewOrder(size, seed uint64, parts ...uint64) Order {
	r := New(seed, parts...)
	o := Order{Size: size, offset: r.Uint64N(size), stride: 1}
	for size > 2 {
		if o.stride = 1 + r.Uint64N(size-1); gcd(o.stride, size) == 1 {
			break
		}
	}
	return o
}

// At is the k-th number of the order, k below Size.
func (o Order) At(k uint64) uint64 {
	high, low := bits.Mul64(k, o.stride)
	_, rest := bits.Div64(high, low, o.Size)
	return (rest + o.offset) % o.Size
}

func gcd(a, b uint64) uint64 {
	for b > 0 {
		a, b = b, a%b
	}
	return a
}
