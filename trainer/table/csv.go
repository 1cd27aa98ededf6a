package table

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unsafe"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/channel"
)

var (
	nan      = math.NaN()
	byteMark = []byte("\xef\xbb\xbf")
)

// maxQuoted bounds a quoted cell: a quote that is not closed within it is taken for a mistake of
// its own line, not for the beginning of a cell that swallows the rest of the file.
const maxQuoted = 1 << 20

// csvFormat is RFC 4180, with blanks around cells dropped. A quote opens a quoted cell only where
// a cell begins.
type csvFormat struct{}

// names reads a file's first record.
func (csvFormat) names(file string, o Options) (fields []Field, err error) {
	f, err := channel.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err := f.Peek(f.Size())
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, channel.Broken(err)
	}
	text = bytes.TrimPrefix(text, byteMark)
	end := recordEnd(text, o.Delimiter, true)
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, fault.New(fault.Invalid, "is empty: its first line must name the columns")
	}
	cells, reason := splitRecord(trimEnd(string(text[:end])), o.Delimiter, nil)
	if reason != "" {
		return nil, fault.New(fault.Invalid, "line 1: %s", reason)
	}
	for _, name := range cells {
		fields = append(fields, Field{Name: name, Kind: Text})
	}
	return fields, nil
}

func (csvFormat) units(file string, s *Source, yield func(unit) error) (err error) {
	f, err := channel.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if mark, _ := f.Peek(len(byteMark)); bytes.Equal(mark, byteMark) {
		_, _ = f.Discard(len(byteMark))
	}
	delimiter := s.options.Delimiter
	b := blocks{from: f, line: 1, cut: func(text []byte) int { return lastRecordEnd(text, delimiter) }}
	header := len(s.options.Columns) == 0
	for {
		block, first, err := b.next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if header {
			end := recordEnd(block, delimiter, true)
			first += bytes.Count(block[:end], newline)
			block, header = block[end:], false
		}
		fields := s.Fields
		if err := yield(func() (Batch, []Broken) { return s.parseCSV(file, block, first, fields) }); err != nil {
			return err
		}
	}
}

var newline = []byte("\n")

func (b *blocks) pass(text []byte) (first int) {
	first = b.line
	b.line += bytes.Count(text, newline)
	return first
}

// recordEnd is how long the first record of a text is, its line's end included. If the text
// may go on and must to tell, it is -1.
func recordEnd(text []byte, delimiter byte, whole bool) int {
	end := bytes.IndexByte(text, '\n')
	if quote := bytes.IndexByte(text[:max(end, 0)], '"'); quote < 0 && end >= 0 {
		return end + 1
	}
	begins := true // a cell does here
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n':
			return i + 1
		case c == delimiter:
			begins = true
		case c == '"' && begins:
			closing := closingQuote(text[i+1:])
			if closing < 0 {
				return unclosedEnd(text, i, whole)
			}
			i, begins = i+1+closing, false
		case c != ' ':
			begins = false
		}
	}
	if whole {
		return len(text)
	}
	return -1
}

// unclosedEnd is where a record ends whose quote at this place is not closed: with its line.
func unclosedEnd(text []byte, quote int, whole bool) int {
	end := bytes.IndexByte(text[quote:], '\n')
	switch {
	case !whole && (end < 0 || len(text)-quote <= maxQuoted):
		return -1
	case end < 0:
		return len(text)
	}
	return quote + end + 1
}

// closingQuote is the place of the quote that ends a cell; two quotes are one in the cell.
func closingQuote(text []byte) int {
	text = text[:min(len(text), maxQuoted)]
	for at := 0; ; {
		n := bytes.IndexByte(text[at:], '"')
		if n < 0 {
			return -1
		}
		at += n
		if at+1 < len(text) && text[at+1] == '"' {
			at += 2
			continue
		}
		return at
	}
}

// lastRecordEnd is where the last whole record ends, or 0.
func lastRecordEnd(text []byte, delimiter byte) int {
	if bytes.IndexByte(text, '"') < 0 {
		return bytes.LastIndexByte(text, '\n') + 1
	}
	at := 0
	for {
		n := recordEnd(text[at:], delimiter, false)
		if n <= 0 {
			return at
		}
		at += n
	}
}

func (s *Source) parseCSV(file string, block []byte, line int, fields []Field) (Batch, []Broken) {
	b := NewBatch(fields, bytes.Count(block, newline)+1)
	var broken []Broken
	cells := make([]string, 0, len(fields))
	for len(block) > 0 {
		end := recordEnd(block, s.options.Delimiter, true)
		// The block is never written again, and lives as long as a cell of it.
		record := trimEnd(unsafe.String(unsafe.SliceData(block), end))
		first := line
		line += strings.Count(record, "\n") + 1
		block = block[end:]
		if strings.TrimSpace(record) == "" {
			continue
		}
		var reason string
		cells, reason = splitRecord(record, s.options.Delimiter, cells[:0])
		if reason == "" && len(cells) != len(fields) {
			reason = fmt.Sprintf("%d columns where the header has %d", len(cells), len(fields))
		}
		if reason == "" {
			reason = s.add(&b, cells)
		}
		if reason != "" {
			broken = append(broken, Broken{File: file, Line: first, Reason: reason, Text: record})
		}
	}
	return b, broken
}

func trimEnd(record string) string {
	return strings.TrimSuffix(strings.TrimSuffix(record, "\n"), "\r")
}

// splitRecord cuts a record into its cells.
func splitRecord(record string, delimiter byte, cells []string) ([]string, string) {
	for {
		record = strings.TrimLeft(record, " ")
		var cell string
		var more bool
		if record != "" && record[0] == '"' {
			closing := closingQuote(unsafe.Slice(unsafe.StringData(record), len(record))[1:])
			if closing < 0 {
				return cells, fmt.Sprintf("column %d: a quote is not closed", len(cells)+1)
			}
			cell = record[1 : 1+closing]
			if strings.Contains(cell, `""`) {
				cell = strings.ReplaceAll(cell, `""`, `"`)
			}
			rest := strings.TrimLeft(record[closing+2:], " ")
			if more = rest != ""; more && rest[0] != delimiter {
				return cells, fmt.Sprintf("column %d: %q stands behind the closing quote", len(cells)+1, clip(rest))
			} else if more {
				record = rest[1:]
			}
		} else if at := strings.IndexByte(record, delimiter); at >= 0 {
			cell, record, more = strings.TrimRight(record[:at], " "), record[at+1:], true
		} else {
			cell = strings.TrimRight(record, " ")
		}
		if cells = append(cells, cell); !more {
			return cells, ""
		}
	}
}
