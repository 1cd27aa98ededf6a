package payload

import (
	"bytes"
	"fmt"
	"strings"
	"unsafe"

	"github.com/clary-ml/clary/internal/fault"
)

// csv reads lines of cells. The first may name the inputs, in any order. A cell may stand in
// quotes, and then hold commas, line ends and doubled quotes.
func (b *builder) csv(text []byte) error {
	line := 1
	first := true
	var cells []string
	for len(text) > 0 {
		var err error
		at := line
		var rest []byte
		cells, rest, err = record(text, cells[:0])
		if err != nil {
			return fmt.Errorf("line %d: %w", at, err)
		}
		line += bytes.Count(text[:len(text)-len(rest)], []byte{'\n'})
		text = rest
		if len(cells) == 1 && cells[0] == "" {
			continue // a blank line
		}
		if first {
			first = false
			if b.header(cells) {
				continue
			}
		}
		if err := b.line(cells); err != nil {
			return fmt.Errorf("line %d: %w", at, err)
		}
	}
	return nil
}

// header takes a line that names every input once.
func (b *builder) header(cells []string) bool {
	if len(b.columns) == 1 || len(cells) != len(b.columns) {
		return false
	}
	order, seen := make([]int, len(cells)), make([]bool, len(cells))
	for i, cell := range cells {
		at := b.find(cell)
		if at < 0 || seen[at] {
			return false
		}
		order[i], seen[at] = at, true
	}
	b.order = order
	return true
}

func (b *builder) line(cells []string) error {
	if len(b.columns) == 1 {
		for _, cell := range cells {
			if err := b.columns[0].add(cell); err != nil {
				return err
			}
		}
		return b.end()
	}
	if len(cells) != len(b.columns) {
		return fault.New(fault.Invalid, "%d columns: the model takes %d", len(cells), len(b.columns))
	}
	for i, cell := range cells {
		at := i
		if b.order != nil {
			at = b.order[i]
		}
		if err := b.columns[at].add(cell); err != nil {
			return err
		}
	}
	return b.end()
}

// record cuts the first record off a text. The cells stand on the text.
func record(text []byte, cells []string) ([]string, []byte, error) {
	for {
		text = bytes.TrimLeft(text, " \t")
		if len(text) > 0 && text[0] == '"' {
			cell, rest, err := quoted(text[1:])
			if err != nil {
				return cells, nil, fmt.Errorf("column %d: %w", len(cells)+1, err)
			}
			cells = append(cells, cell)
			switch rest = bytes.TrimLeft(rest, " \t\r"); {
			case len(rest) == 0:
				return cells, nil, nil
			case rest[0] == '\n':
				return cells, rest[1:], nil
			case rest[0] != ',':
				return cells, nil, fault.New(fault.Invalid, "column %d: text after the closing quote", len(cells))
			}
			text = rest[1:]
			continue
		}
		end := bytes.IndexAny(text, ",\n")
		if end < 0 {
			return append(cells, trimmed(text)), nil, nil
		}
		cells = append(cells, trimmed(text[:end]))
		stop := text[end] == '\n'
		if text = text[end+1:]; stop {
			return cells, text, nil
		}
	}
}

func trimmed(cell []byte) string {
	cell = bytes.TrimRight(cell, " \t\r")
	return unsafe.String(unsafe.SliceData(cell), len(cell))
}

// quoted is a cell up to its closing quote, and what is behind it.
func quoted(text []byte) (cell string, rest []byte, err error) {
	for at := 0; ; {
		n := bytes.IndexByte(text[at:], '"')
		if n < 0 {
			return "", nil, fault.New(fault.Invalid, "a quote is not closed")
		}
		if at += n; at+1 < len(text) && text[at+1] == '"' {
			at += 2
			continue
		}
		cell = string(text[:at])
		return strings.ReplaceAll(cell, `""`, `"`), text[at+1:], nil
	}
}
