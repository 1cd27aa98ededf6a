package paramserver

import (
	"bufio"
	"encoding/binary"
	"io"
	"math"
	"unsafe"

	"github.com/clary-ml/clary/internal/fault"
)

// kind says what a frame means.
type kind uint8

const (
	kindHello   kind = iota + 1 // worker: who I am; the payload is the run's digest
	kindWelcome                 // server: Step 1 if it has weights, 0 if it waits for worker 0's
	kindState                   // worker 0: weights (slot 0) or optimiser state (slot 1, 2) to begin with
	kindPull                    // worker: send me the weights as they are
	kindPush                    // worker: one chunk of the gradient of a step
	kindWeights                 // server: one chunk of weights, Step rounds old
	kindSlots                   // worker: send me the optimiser's state; server: one chunk of it
	kindDone                    // worker: I have all I need; server: noted
	kindFail                    // either: it is over; the payload says why
	kindEnd                     // one past the last
)

const (
	magic      = 0x31535043 // "CPS1"
	headerSize = 72
	// chunkLen is the number of values in a full chunk: 64 KiB, four TLS records, so that
	// a server adds one chunk while the next is on the wire.
	chunkLen = 16 << 10
	// maxText bounds the payload of a frame that carries text.
	maxText = 1024
)

// header precedes every payload.
type header struct {
	Kind   kind
	Slot   uint8
	Worker uint16
	// Step counts the rounds.
	Step uint64
	// Offset is the chunk's place in the server's block, Count its number of values; for
	// text, Count is the number of bytes.
	Offset, Count uint32
	Stats         Stats
}

// Stats travel with a push, and come back as the sum over all workers.
type Stats struct {
	// Loss is the sum of the rows' losses, Correct how many were classified right.
	Loss, Correct, Rows float64
	// Interrupt is above 0 if someone was told to stop: everyone ends after this step.
	Interrupt float64
	// Finish is above 0 if worker 0 has seen enough.
	Finish float64
}

// Add adds what another worker has to say.
func (s *Stats) Add(o Stats) {
	s.Loss += o.Loss
	s.Correct += o.Correct
	s.Rows += o.Rows
	s.Interrupt += o.Interrupt
	s.Finish += o.Finish
}

func (h header) text() bool { return h.Kind == kindHello || h.Kind == kindFail }

// payload is the number of bytes that follow.
func (h header) payload() int {
	if h.text() {
		return int(h.Count)
	}
	return 4 * int(h.Count)
}

func (h header) encode(b *[headerSize]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	b[4], b[5] = byte(h.Kind), h.Slot
	le.PutUint16(b[6:], h.Worker)
	le.PutUint64(b[8:], h.Step)
	le.PutUint32(b[16:], h.Offset)
	le.PutUint32(b[20:], h.Count)
	for i, v := range []float64{h.Stats.Loss, h.Stats.Correct, h.Stats.Rows, h.Stats.Interrupt, h.Stats.Finish} {
		le.PutUint64(b[24+8*i:], math.Float64bits(v))
	}
	le.PutUint64(b[64:], 0)
}

// decode refuses what no peer of this version sends.
func decode(b *[headerSize]byte) (header, error) {
	le := binary.LittleEndian
	h := header{Kind: kind(b[4]), Slot: b[5], Worker: le.Uint16(b[6:]), Step: le.Uint64(b[8:]), Offset: le.Uint32(b[16:]), Count: le.Uint32(b[20:])}
	for i, v := range []*float64{&h.Stats.Loss, &h.Stats.Correct, &h.Stats.Rows, &h.Stats.Interrupt, &h.Stats.Finish} {
		*v = math.Float64frombits(le.Uint64(b[24+8*i:]))
		if math.IsNaN(*v) || math.IsInf(*v, 0) {
			return header{}, fault.New(fault.Invalid, "frame: a statistic is %v", *v)
		}
	}
	limit := uint32(chunkLen)
	if h.text() {
		limit = maxText
	}
	switch {
	case le.Uint32(b[0:]) != magic || le.Uint64(b[64:]) != 0:
		return header{}, fault.New(fault.Invalid, "frame: begins with % x: not a parameter server's peer of this version", b[:4])
	case h.Kind == 0 || h.Kind >= kindEnd:
		return header{}, fault.New(fault.Invalid, "frame: kind %d is unknown", h.Kind)
	case h.Count > limit:
		return header{}, fault.New(fault.Invalid, "frame: %d values, at most %d", h.Count, limit)
	}
	return h, nil
}

// wire reads and writes frames. Reading and writing may go on at the same time, but not
// two of either.
type wire struct {
	conn io.ReadWriteCloser
	in   *bufio.Reader
	out  *bufio.Writer
}

func newWire(conn io.ReadWriteCloser) *wire {
	return &wire{conn: conn, in: bufio.NewReaderSize(conn, 4<<10), out: bufio.NewWriterSize(conn, 16<<10)}
}

// next reads a header; its payload must be read before the next one.
func (w *wire) next() (header, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(w.in, b[:]); err != nil {
		return header{}, err
	}
	return decode(&b)
}

func (w *wire) readText(h header) (string, error) {
	b := make([]byte, h.Count)
	_, err := io.ReadFull(w.in, b)
	return string(b), err
}

func (w *wire) readValues(to []float32) error {
	_, err := io.ReadFull(w.in, bytesOf(to))
	return err
}

// write sends a frame with values; it may lie in the buffer until flush.
func (w *wire) write(h header, values []float32) error {
	h.Count = uint32(len(values))
	return w.writeBytes(h, bytesOf(values))
}

func (w *wire) writeText(h header, text string) error {
	text = text[:min(len(text), maxText)]
	h.Count = uint32(len(text))
	if err := w.writeBytes(h, []byte(text)); err != nil {
		return err
	}
	return w.out.Flush()
}

func (w *wire) writeBytes(h header, payload []byte) error {
	var b [headerSize]byte
	h.encode(&b)
	if _, err := w.out.Write(b[:]); err != nil {
		return err
	}
	_, err := w.out.Write(payload)
	return err
}

// bytesOf looks at values as the bytes that travel: little-endian, as every machine is
// that Clary runs on; Serve and Dial refuse another.
func bytesOf(values []float32) []byte {
	if len(values) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), 4*len(values))
}

func checkMachine() error {
	if b := bytesOf([]float32{1}); b[3] != 0x3f {
		return fault.New(fault.Unready, "this machine is big-endian: run training on amd64 or arm64")
	}
	return nil
}

// Block is the half-open part [from, to) of an arena that a server holds.
func Block(parameters, servers, index int) (from, to int) {
	cut := func(i int) int { return int(int64(parameters) * int64(i) / int64(servers)) }
	return cut(index), cut(index + 1)
}

// chunks calls f with each chunk of a block of n values.
func chunks(n int, f func(from, to int) error) error {
	for from := 0; from < n; from += chunkLen {
		if err := f(from, min(from+chunkLen, n)); err != nil {
			return err
		}
	}
	return nil
}
