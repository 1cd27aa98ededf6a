package pipe

import (
	"encoding/binary"
	"io"

	"github.com/clary-ml/clary/internal/fault"
)

// The framing of MXNet's RecordIO: magic, length, content, and zeros up to a multiple of
// four. The three highest bits of the length tell parts of a record; a whole one has none.
const (
	recordMagic = 0xced7230a
	recordAlign = 4
	maxRecord   = 1<<29 - 1 // bytes
)

// writeRecord wraps size bytes as one record. Where the magic stands in the content it is
// left there: a reader goes by the length.
func writeRecord(to io.Writer, from io.Reader, size int64) error {
	if size > maxRecord {
		return fault.New(fault.Invalid, "%d bytes are too many for a record: at most %d", size, maxRecord)
	}
	var header [8]byte
	binary.LittleEndian.PutUint32(header[:4], recordMagic)
	binary.LittleEndian.PutUint32(header[4:], uint32(size))
	if _, err := to.Write(header[:]); err != nil {
		return err
	}
	if err := copyTo(to, from); err != nil {
		return err
	}
	if rest := size % recordAlign; rest != 0 {
		_, err := to.Write(make([]byte, recordAlign-rest))
		return err
	}
	return nil
}
