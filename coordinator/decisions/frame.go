package decisions

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// A segment is a heading and frames. The heading is magic and the format's version in 4 bytes; a frame is the length of its
// content and the CRC-32C of it, 4 bytes each, and the content, a claryv1.Told. All numbers are little-endian.
const (
	magic   = "CLARYDEC"
	version = 1
	// maxFrame bounds what is read at once: a plan of as many tasks as one may have is far smaller.
	maxFrame = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// heading begins a segment.
func heading() []byte { return binary.LittleEndian.AppendUint32([]byte(magic), version) }

// frame appends one thing that was told.
func (d described) frame(to []byte, t Told) ([]byte, error) {
	at := len(to)
	to = append(to, make([]byte, 8)...)
	to, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(to, d.toProto(t))
	if err != nil {
		return to[:at], fault.New(fault.Internal, "record a decision: %w", err)
	}
	content := to[at+8:]
	binary.LittleEndian.PutUint32(to[at:], uint32(len(content)))
	binary.LittleEndian.PutUint32(to[at+4:], crc32.Checksum(content, castagnoli))
	return to, nil
}

// reader reads segments that stand one behind the other.
type reader struct {
	from   *bufio.Reader
	offset int64 // of what is read next
	known  described
}

func newReader(from io.Reader) *reader {
	return &reader{from: bufio.NewReaderSize(from, 1<<16), known: described{}}
}

// next returns what was told next, io.EOF at the end of a record that is whole, and errTorn where it ends
// within a frame, as it does when whoever wrote it was stopped.
func (r *reader) next() (Told, error) {
	for {
		head, err := r.from.Peek(len(magic))
		if len(head) == 0 {
			return Told{}, err // io.EOF, or why the record cannot be read
		}
		if string(head) != magic {
			if r.offset == 0 {
				return Told{}, fault.New(fault.Invalid, "this is no record of decisions: it does not begin with %q", magic)
			}
			return r.frame()
		}
		var heading [len(magic) + 4]byte
		if _, err := io.ReadFull(r.from, heading[:]); err != nil {
			return Told{}, errTorn
		}
		if v := binary.LittleEndian.Uint32(heading[len(magic):]); v != version {
			return Told{}, fault.New(fault.Invalid, "offset %d: the record has format %d, this program knows %d: use the program that recorded it", r.offset, v, version)
		}
		r.offset += int64(len(heading))
	}
}

// errTorn ends a record whose last frame is not whole.
var errTorn = errors.New("the record ends within a frame")

func (r *reader) frame() (Told, error) {
	var head [8]byte
	if _, err := io.ReadFull(r.from, head[:]); err != nil {
		return Told{}, errTorn
	}
	size, sum := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:])
	if size > maxFrame {
		return Told{}, fault.New(fault.Invalid, "offset %d: a frame of %d bytes: the record is damaged from here on", r.offset, size)
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(r.from, content); err != nil {
		return Told{}, errTorn
	}
	if crc32.Checksum(content, castagnoli) != sum {
		return Told{}, fault.New(fault.Invalid, "offset %d: the checksum is wrong: the record is damaged here", r.offset)
	}
	var p claryv1.Told
	if err := proto.Unmarshal(content, &p); err != nil {
		return Told{}, fault.New(fault.Invalid, "offset %d: %w", r.offset, err)
	}
	told, known := r.known.fromProto(&p)
	if !known {
		return Told{}, fault.New(fault.Invalid, "offset %d: a newer version told something that this one does not know, or what it says is not whole", r.offset)
	}
	r.offset += int64(len(head)) + int64(size)
	return told, nil
}

// String says which it is, for whoever reads a record.
func (t Told) String() string {
	switch {
	case t.Begin != nil:
		return "begin"
	case t.Node != nil:
		return "node " + t.Node.ID
	case t.NodeGone != "":
		return "node gone " + t.NodeGone
	case t.Queues != nil:
		return fmt.Sprintf("%d queues", len(t.Queues.All))
	case t.Waits != nil:
		return "waits " + t.Waits.Gang.ID()
	case t.Runs != nil:
		return "runs " + t.Runs.Gang.ID()
	case t.Rests != "":
		return "rests " + t.Rests
	case t.Gone != "":
		return "gone " + t.Gone
	case t.Pause != nil:
		return "pause " + t.Pause.Gang
	case t.Decided != nil:
		return fmt.Sprintf("decision %d", t.Decided.Number)
	}
	return "nothing"
}
