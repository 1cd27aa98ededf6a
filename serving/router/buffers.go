package router

import "sync"

// buffers are used again. They have two sizes.
type buffers struct {
	small, big sync.Pool
}

func newBuffers() *buffers {
	return &buffers{
		small: sync.Pool{New: func() any { return new([smallBuffer]byte) }},
		big:   sync.Pool{New: func() any { return new([bigBuffer]byte) }},
	}
}

func (b *buffers) get(size int) []byte {
	if size <= smallBuffer {
		return b.small.Get().(*[smallBuffer]byte)[:]
	}
	return b.big.Get().(*[bigBuffer]byte)[:]
}

// put takes a buffer back, and leaves alone what is none.
func (b *buffers) put(used []byte) {
	switch cap(used) {
	case smallBuffer:
		b.small.Put((*[smallBuffer]byte)(used[:smallBuffer]))
	case bigBuffer:
		b.big.Put((*[bigBuffer]byte)(used[:bigBuffer]))
	}
}

// need makes sure that there is a buffer.
func (b *buffers) need(at *[]byte, size int) bool {
	if *at == nil {
		*at = b.get(size)
	}
	return true
}
