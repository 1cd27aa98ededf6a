// Package record cuts the bytes of an object into the records that a batch transform sends:
// the whole object, lines, RecordIO or TFRecord. It reads ahead no more than one record, and
// checks what frames a record before it believes a length.
package record

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/clary-ml/clary/internal/fault"
)

// Split says where records end.
type Split string

// The splits.
const (
	None     Split = "none"      // the object is one record
	Line     Split = "line"      // records end with a newline, or with a carriage return and one
	RecordIO Split = "record_io" // MXNet's framing, which SageMaker's protobuf records use
	TFRecord Split = "tf_record" // TensorFlow's framing
)

// Splits are all of them.
func Splits() []Split { return []Split{None, Line, RecordIO, TFRecord} }

// Framed reports whether records keep their frame, so that some of them one behind the other
// are a file of the same kind.
func (s Split) Framed() bool { return s == RecordIO || s == TFRecord }

// Position is a place between two records of an object.
type Position struct {
	Offset int64 // bytes before it
	Number int64 // lines before it, blank ones too; records of other splits
}

// Reader reads one object.
type Reader struct {
	from  *bufio.Reader
	split Split
	most  int64
	at    Position
	begun bool
	data  []byte
}

// NewReader reads records of at most `most` bytes, frames included. from stands at the
// position, which is the zero one for a whole object.
func NewReader(from io.Reader, split Split, at Position, most int64) *Reader {
	return &Reader{from: bufio.NewReaderSize(from, 1<<16), split: split, most: most, at: at}
}

// At is the position behind the record that Next gave last.
func (r *Reader) At() Position { return r.at }

// Next returns the next record, which is good until the next call, and io.EOF behind the
// last. A record that is broken or too large is Invalid, and the error names it. Blank lines
// are no records.
func (r *Reader) Next() ([]byte, error) {
	r.data = r.data[:0]
	switch r.split {
	case Line:
		return r.line()
	case RecordIO:
		return r.recordIO()
	case TFRecord:
		return r.tfRecord()
	default:
		return r.whole()
	}
}

// whole reads all there is, once. An empty object has no record.
func (r *Reader) whole() ([]byte, error) {
	if r.begun || r.at.Number > 0 {
		return nil, io.EOF
	}
	r.begun = true
	body := bytes.NewBuffer(r.data)
	n, err := io.Copy(body, io.LimitReader(r.from, r.most+1))
	switch {
	case err != nil:
		return nil, r.unread(err)
	case n > r.most:
		return nil, fault.New(fault.Invalid, "the object is larger than a request may be (%d bytes): raise max_payload, or split it", r.most)
	case n == 0:
		return nil, io.EOF
	}
	r.data = body.Bytes()
	r.at = Position{r.at.Offset + n, 1}
	return r.data, nil
}

// line reads up to a newline. The end of the object ends a line too.
func (r *Reader) line() ([]byte, error) {
	for {
		r.data = r.data[:0]
		ended, err := r.untilNewline()
		if err != nil {
			return nil, err
		}
		if !ended && len(r.data) == 0 {
			return nil, io.EOF
		}
		r.at.Number++
		line := bytes.TrimSuffix(bytes.TrimSuffix(r.data, []byte("\n")), []byte("\r"))
		if int64(len(line)) > r.most {
			return nil, r.tooLarge("line")
		}
		if len(bytes.TrimSpace(line)) > 0 {
			return line, nil
		}
	}
}

func (r *Reader) untilNewline() (ended bool, err error) {
	for {
		piece, err := r.from.ReadSlice('\n')
		r.data = append(r.data, piece...)
		r.at.Offset += int64(len(piece))
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, io.EOF):
			return false, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return false, r.unread(err)
		case int64(len(r.data)) > r.most+2: // not even its ending makes up for it
			r.at.Number++
			return false, r.tooLarge("line")
		}
	}
}

// magic begins each piece of a RecordIO record. The three highest bits of the length that
// follows say whether it is whole (0), the first (1), a middle (2) or the last (3) of a
// record that was cut where its data held the magic itself.
const (
	magic       = 0xced7230a
	lengthBits  = 29
	pieceWhole  = 0
	pieceFirst  = 1
	pieceMiddle = 2
	pieceLast   = 3
)

func (r *Reader) recordIO() ([]byte, error) {
	inside := false
	for {
		head, err := r.take(8, "record")
		if err != nil {
			if errors.Is(err, io.EOF) && inside {
				return nil, r.broken("record", "the object ends inside of it")
			}
			return nil, err
		}
		word := binary.LittleEndian.Uint32(head[4:])
		kind, length := word>>lengthBits, int64(word&(1<<lengthBits-1))
		if binary.LittleEndian.Uint32(head) != magic {
			return nil, r.broken("record", "it does not begin with RecordIO's magic number")
		}
		if open := kind == pieceMiddle || kind == pieceLast; kind > pieceLast || open != inside {
			return nil, r.broken("record", "its pieces are out of order")
		}
		padded := (length + 3) / 4 * 4
		if _, err := r.take(padded, "record"); err != nil {
			return nil, r.inside(err, "record")
		}
		if kind == pieceWhole || kind == pieceLast {
			return r.ended(), nil
		}
		inside = true
	}
}

// castagnoli is the polynomial of TFRecord's checksums.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is a checksum as TFRecord writes it.
func masked(data []byte) uint32 {
	sum := crc32.Checksum(data, castagnoli)
	return (sum>>15 | sum<<17) + 0xa282ead8
}

func (r *Reader) tfRecord() ([]byte, error) {
	head, err := r.take(12, "record")
	if err != nil {
		return nil, err
	}
	if masked(head[:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return nil, r.broken("record", "the checksum of its length does not match")
	}
	length := binary.LittleEndian.Uint64(head)
	if length > uint64(r.most) {
		return nil, r.tooLarge("record")
	}
	body, err := r.take(int64(length)+4, "record")
	if err != nil {
		return nil, r.inside(err, "record")
	}
	if masked(body[:length]) != binary.LittleEndian.Uint32(body[length:]) {
		return nil, r.broken("record", "the checksum of its data does not match")
	}
	return r.ended(), nil
}

// take appends exactly n bytes to the record and returns them. io.EOF means that there was
// nothing at all.
func (r *Reader) take(n int64, what string) ([]byte, error) {
	from := len(r.data)
	if int64(from)+n > r.most {
		return nil, r.tooLarge(what)
	}
	body := bytes.NewBuffer(r.data)
	got, err := io.CopyN(body, r.from, n) // grows with what really comes
	r.data = body.Bytes()
	switch {
	case errors.Is(err, io.EOF) && got == 0:
		return nil, io.EOF
	case errors.Is(err, io.EOF):
		return nil, r.broken(what, "the object ends inside of it")
	case err != nil:
		return nil, r.unread(err)
	}
	return r.data[from:], nil
}

func (r *Reader) inside(err error, what string) error {
	if errors.Is(err, io.EOF) {
		return r.broken(what, "the object ends inside of it")
	}
	return err
}

func (r *Reader) ended() []byte {
	r.at.Offset += int64(len(r.data))
	r.at.Number++
	return r.data
}

func (r *Reader) broken(what, why string) error {
	return fault.New(fault.Invalid, "%s %d at byte %d: %s", what, r.at.Number+1, r.at.Offset, why)
}

func (r *Reader) tooLarge(what string) error {
	number := r.at.Number
	if r.split != Line { // whose number was counted already
		number++
	}
	return fault.New(fault.Invalid, "%s %d is larger than a request may be (%d bytes): raise max_payload", what, number, r.most)
}

func (r *Reader) unread(err error) error {
	return fault.New(fault.Unready, "read the object behind byte %d: %w", r.at.Offset, err)
}
