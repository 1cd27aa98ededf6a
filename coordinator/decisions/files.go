package decisions

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"

	"github.com/clary-ml/clary/internal/fault"
)

// Open reads segments one behind the other, each up to the end of its last whole frame: whoever wrote it may have been
// stopped, or be writing yet.
func Open(paths []string) (io.ReadCloser, error) {
	whole := &segments{}
	for _, path := range paths {
		file, err := os.Open(path)
		if os.IsNotExist(err) {
			continue // it was too old, meanwhile
		}
		if err != nil {
			return nil, err
		}
		size, err := wholeFrames(file)
		_ = file.Close()
		if err != nil {
			return nil, err
		}
		whole.parts = append(whole.parts, part{path, size})
	}
	return whole, nil
}

type part struct {
	path string
	size int64
}

// segments reads parts one behind the other.
type segments struct {
	parts []part
	file  *os.File
	left  int64
}

// Read implements io.Reader.
func (s *segments) Read(to []byte) (int, error) {
	for s.left == 0 {
		if err := s.Close(); err != nil {
			return 0, err
		}
		if len(s.parts) == 0 {
			return 0, io.EOF
		}
		var err error
		if s.file, err = os.Open(s.parts[0].path); err != nil {
			return 0, err
		}
		s.left, s.parts = s.parts[0].size, s.parts[1:]
	}
	n, err := s.file.Read(to[:min(int64(len(to)), s.left)])
	s.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close implements io.Closer.
func (s *segments) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// wholeFrames is the length of a segment without a last frame that is not whole.
func wholeFrames(file io.Reader) (int64, error) {
	from := bufio.NewReaderSize(file, 1<<16)
	size := int64(len(heading()))
	if n, err := from.Discard(int(size)); err != nil {
		return int64(n), nil // it had no time to begin
	}
	for {
		var head [8]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return size, ignoreEOF(err)
		}
		length := int64(binary.LittleEndian.Uint32(head[:]))
		if length > maxFrame {
			return size + int64(len(head)) + length, nil // whoever reads it says what is wrong
		}
		if _, err := from.Discard(int(length)); err != nil {
			return size, ignoreEOF(err)
		}
		size += int64(len(head)) + length
	}
}

func ignoreEOF(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

// Copy copies the record as it is now, the oldest segment first; with last only the newest segment.
func (r *Recorder) Copy(to io.Writer, last bool) error {
	paths, err := Segments(r.dir)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if len(paths) == 0 {
		return fault.New(fault.NotFound, "no decision is recorded yet")
	}
	if last {
		paths = paths[len(paths)-1:]
	}
	from, err := Open(paths)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = io.Copy(to, from)
	return err
}
