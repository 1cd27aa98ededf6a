package journal

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

// lag is how long a line without an end is waited for before it is kept as a piece. Programs
// often write a line and its end separately.
const lag = 25 * time.Millisecond

// leastBytes has room for an entry in each of the two files.
const leastBytes = 64 << 10

// Options are how a journal is written.
type Options struct {
	Bytes int64            // most that is kept on disk, of the newest; 64 KiB at least
	Now   func() time.Time // time.Now if nil
}

// Writer writes a journal. It never fails its user, and waits for nothing but the disk: what
// cannot be written is counted. It may be used from any goroutine, and one at a time writes a journal.
type Writer struct {
	now func() time.Time

	mu      sync.Mutex
	rotor   rotor
	buffer  []byte            // entries on their way to the file
	clock   int64             // of the write in progress
	last    int64             // the latest entry's time
	stamp   [stampLength]byte // and how it is written
	streams []*Stream
}

// Open opens the journal at path, and begins one if there is none. What a writer that was killed
// left of its last entry is cut off, and times go on after its last one.
func Open(path string, options Options) *Writer {
	limit := max(options.Bytes, leastBytes) / 2
	w := &Writer{now: options.Now, rotor: rotor{path: path, limit: limit}, buffer: make([]byte, 0, min(64<<10, limit))}
	if w.now == nil {
		w.now = time.Now
	}
	w.last = w.rotor.resume()
	return w
}

// Stream returns the stream of a name, which CheckStream accepts.
func (w *Writer) Stream(name string) *Stream {
	if err := CheckStream(name); err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.streams {
		if s.name == name {
			return s
		}
	}
	s := &Stream{w: w, name: name, full: []byte(" " + name + " F "), piece: []byte(" " + name + " P ")}
	w.streams = append(w.streams, s)
	return s
}

// Append writes a whole line at an instant, in Unix nanoseconds, or now if that is 0. An instant that
// is not after the latest is taken for the next one after it. A newline in the text ends a line.
func (w *Writer) Append(at int64, stream string, text []byte) {
	s := w.Stream(stream)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.clock = at; at == 0 {
		w.clock = w.now().UnixNano()
	}
	s.take(text)
	s.line(nil)
	w.flush()
}

// Dropped is how many bytes of the streams could not be written.
func (w *Writer) Dropped() int64 { return w.rotor.dropped.Load() }

// Close writes what streams still hold and closes the files.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.now().UnixNano()
	for _, s := range w.streams {
		s.release(len(s.held))
	}
	w.flush()
	w.rotor.close()
}

// emit adds an entry to the buffer.
func (w *Writer) emit(tag, text []byte) {
	if cap(w.buffer)-len(w.buffer) < maxEntry {
		w.flush()
	}
	w.tick()
	b := append(append(append(w.buffer, w.stamp[:]...), tag...), text...)
	w.buffer = append(b, '\n')
}

// tick goes to the next entry's time: the clock's, or the nanosecond after the latest.
func (w *Writer) tick() {
	if w.clock > w.last || w.stamp[0] == 0 {
		w.last = max(w.last+1, w.clock)
		time.Unix(0, w.last).UTC().AppendFormat(w.stamp[:0], layout)
		return
	}
	w.last++ // the lines of a flood: add one to the digits
	for i := stampLength - 2; i >= secondLength; i-- {
		if w.stamp[i] < '9' {
			w.stamp[i]++
			return
		}
		w.stamp[i] = '0'
	}
	time.Unix(0, w.last).UTC().AppendFormat(w.stamp[:0], layout)
}

// flush writes the buffer to the file.
func (w *Writer) flush() {
	if len(w.buffer) > 0 {
		w.rotor.write(w.buffer)
		w.buffer = w.buffer[:0]
	}
}

// Stream is one stream of a journal.
type Stream struct {
	w           *Writer
	name        string
	full, piece []byte // what stands between an entry's time and its text

	held   []byte // the beginning of a line whose end has not come, MaxText at most
	since  time.Time
	waited bool // the last Flush left a part of a character
}

// Write keeps p and returns its length, whatever happens. A line whose end is not in p is held
// until the end comes, or Flush.
func (s *Stream) Write(p []byte) (int, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.clock = s.w.now().UnixNano()
	s.take(p)
	s.w.flush()
	return len(p), nil
}

func (s *Stream) take(p []byte) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			s.hold(p)
			return
		}
		s.line(p[:end])
		p = p[end+1:]
	}
}

// line writes a line, or the rest of one.
func (s *Stream) line(text []byte) {
	if len(s.held) > 0 || len(text) > MaxText {
		s.hold(text)
		text = s.held
	}
	s.w.emit(s.full, text)
	s.held = s.held[:0]
}

// hold takes in a part of a line, and writes pieces of the most that an entry takes.
func (s *Stream) hold(text []byte) {
	if len(s.held) == 0 {
		s.since = s.w.now()
	}
	for len(s.held)+len(text) > MaxText {
		if len(s.held) == 0 {
			n := wholeRunes(text[:MaxText])
			s.w.emit(s.piece, text[:n])
			text = text[n:]
			continue
		}
		room := MaxText - len(s.held)
		s.held = append(s.held, text[:room]...)
		text = text[room:]
		s.release(wholeRunes(s.held))
	}
	s.held = append(s.held, text...)
}

// release writes the first n bytes that are held as a piece.
func (s *Stream) release(n int) {
	if n == 0 {
		return
	}
	s.w.emit(s.piece, s.held[:n])
	s.held = append(s.held[:0], s.held[n:]...)
	s.since = s.w.now()
}

// Flush writes what is held of a line as a piece. Of a character whose bytes have not all come
// yet, those that have are held until the next Flush.
func (s *Stream) Flush() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.clock = s.w.now().UnixNano()
	n := wholeRunes(s.held)
	if n == 0 && s.waited {
		n = len(s.held)
	}
	s.release(n)
	s.waited = len(s.held) > 0
	s.w.flush()
}

// wholeRunes is the length of text without a character at its end that is cut off.
func wholeRunes(text []byte) int {
	for i := len(text) - 1; i >= 0 && len(text)-i < utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRune(text[i:]) {
				return i
			}
			break
		}
	}
	return len(text)
}

// Drain writes all that comes through a pipe until its last writer is gone. A line without an end
// is kept as a piece when nothing has ended it for a moment.
func (s *Stream) Drain(from *os.File) {
	block := make([]byte, 64<<10)
	armed := false // the next deadline is set
	for {
		n, err := from.Read(block)
		if n > 0 {
			_, _ = s.Write(block[:n])
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			armed = false
			_ = from.SetReadDeadline(time.Time{})
			if due, open := s.due(); open && !s.w.now().Before(due) {
				s.Flush()
			}
		} else if err != nil {
			break
		}
		if due, open := s.due(); open && !armed {
			if armed = from.SetReadDeadline(due) == nil; !armed { // not a pipe
				s.Flush()
			}
		}
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.clock = s.w.now().UnixNano()
	s.release(len(s.held))
	s.w.flush()
}

// due is when a line that is held should be written without its end.
func (s *Stream) due() (time.Time, bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.since.Add(lag), len(s.held) > 0
}
