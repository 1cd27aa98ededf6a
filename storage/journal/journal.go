// Package journal keeps timestamped lines of named streams in files, and finds them again
// by time and text.
//
// On disk a line is one of the CRI log format (Kubernetes' container runtime interface), which
// log shippers read:
//
//	2026-11-25T17:40:09.123456789Z stdout F text
//
// The tag F ends a line. P is a piece of one whose end is still to come: it was written without
// an end for a moment, or is too long for one entry. The bytes of a stream are its texts one after
// another, with a newline after each F: nothing is added to them or lost.
//
// Times increase strictly within one journal, so that the time of an entry is also a cursor.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// MaxText is the most bytes of text in one entry; a longer line is kept in pieces.
const MaxText = 16 << 10

// maxEntry is the most bytes that an entry takes on disk.
const maxEntry = MaxText + MaxStream + 40

// MaxStream is the longest name of a stream.
const MaxStream = 64

// Entry is a line of a stream, or a piece of one.
type Entry struct {
	Time    int64 // Unix nanoseconds
	Stream  string
	Partial bool   // the line goes on
	Text    []byte // without the newline
}

// Sink is given entries, in order of time, as many as were at hand. They and their texts are
// valid until it returns; an error ends the reading.
type Sink func(batch []Entry) error

// Size is how many bytes of its stream the entry stands for.
func (e Entry) Size() int64 {
	if e.Partial {
		return int64(len(e.Text))
	}
	return int64(len(e.Text)) + 1
}

// AppendRaw appends the bytes of its stream that the entry stands for.
func (e Entry) AppendRaw(to []byte) []byte {
	to = append(to, e.Text...)
	if !e.Partial {
		to = append(to, '\n')
	}
	return to
}

const (
	layout = "2006-01-02T15:04:05.000000000Z07:00" // of UTC, for which it ends in Z

	secondLength = len("2026-11-25T17:40:09.")
	stampLength  = secondLength + len("123456789Z")
)

// Append appends the entry as a line, with its newline. Its text must have none, and its
// stream be one that CheckStream accepts.
func (e Entry) Append(to []byte) []byte {
	to = time.Unix(0, e.Time).UTC().AppendFormat(to, layout)
	tag := " F "
	if e.Partial {
		tag = " P "
	}
	to = append(append(append(to, ' '), e.Stream...), tag...)
	return append(append(to, e.Text...), '\n')
}

// CheckStream says what is wrong with the name of a stream.
func CheckStream(name string) error {
	if name == "" || len(name) > MaxStream || bytes.ContainsAny([]byte(name), " \n") {
		return fmt.Errorf("stream %q: a name is 1 to %d bytes without spaces and newlines", name, MaxStream)
	}
	return nil
}

var errFormat = errors.New("the line is not of the form TIME STREAM F|P TEXT")

// Parse reads a line without its newline. The entry's text is a part of the line.
func Parse(line []byte) (Entry, error) {
	var p parser
	e, ok := p.parse(line)
	if !ok {
		return Entry{}, errFormat
	}
	return e, nil
}

// parser remembers what most lines have in common with the one before.
type parser struct {
	second  [secondLength]byte // text of the second last seen
	base    int64              // and its nanoseconds
	streams [4]string
}

func (p *parser) parse(line []byte) (Entry, bool) {
	var e Entry
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return e, false
	}
	if e.Time, ok = p.time(stamp); !ok {
		return e, false
	}
	name, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok || len(name) == 0 || len(name) > MaxStream {
		return e, false
	}
	tags, text, _ := bytes.Cut(rest, []byte(" "))
	tag, _, _ := bytes.Cut(tags, []byte(":")) // others may follow: CRI leaves them open
	if len(tag) != 1 || tag[0] != 'F' && tag[0] != 'P' {
		return e, false
	}
	e.Stream, e.Partial, e.Text = p.stream(name), tag[0] == 'P', text
	return e, true
}

func (p *parser) stream(name []byte) string {
	for _, known := range p.streams {
		if string(name) == known {
			return known
		}
	}
	copy(p.streams[1:], p.streams[:])
	p.streams[0] = string(name)
	return p.streams[0]
}

// time reads a journal's own stamps quickly, and any other of RFC 3339.
func (p *parser) time(stamp []byte) (int64, bool) {
	if len(stamp) != stampLength || stamp[secondLength-1] != '.' || stamp[stampLength-1] != 'Z' {
		return slowTime(stamp)
	}
	if !bytes.Equal(stamp[:secondLength], p.second[:]) {
		whole, ok := slowTime(append(stamp[:secondLength-1:secondLength-1], 'Z'))
		if !ok {
			return 0, false
		}
		copy(p.second[:], stamp)
		p.base = whole
	}
	var nanos int64
	for _, digit := range stamp[secondLength : stampLength-1] {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		nanos = nanos*10 + int64(digit-'0')
	}
	return p.base + nanos, true
}

// Years that fit into nanoseconds of 64 bits.
const firstYear, lastYear = 1678, 2261

func slowTime(stamp []byte) (int64, bool) {
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil || t.Year() < firstYear || t.Year() > lastYear {
		return 0, false
	}
	return t.UnixNano(), true
}

// FormatTime is how a journal writes an instant.
func FormatTime(nanos int64) string {
	return time.Unix(0, nanos).UTC().Format(layout)
}

// ParseTime reads an instant of RFC 3339, or Unix nanoseconds.
func ParseTime(text string) (int64, error) {
	if nanos, err := strconv.ParseInt(text, 10, 64); err == nil {
		return nanos, nil
	}
	nanos, ok := slowTime([]byte(text))
	if !ok {
		return 0, fmt.Errorf("%q is no instant like %s", text, time.RFC3339)
	}
	return nanos, nil
}
