package table

import (
	"strconv"
	"strings"
)

// Missing are the texts that mean that a cell is missing: the usual ones and more.
type Missing struct {
	texts   map[string]bool
	begins  [256]bool // the first bytes of them
	longest int
}

// NewMissing has the empty text, NA, N/A, NaN, nan, null, NULL and more.
func NewMissing(more []string) *Missing {
	m := &Missing{texts: map[string]bool{}}
	for _, text := range append([]string{"NA", "N/A", "NaN", "nan", "null", "NULL"}, more...) {
		if text != "" {
			m.texts[text], m.begins[text[0]], m.longest = true, true, max(m.longest, len(text))
		}
	}
	return m
}

// Has reports whether a cell with this text is missing. Nearly all cells are told from the missing
// ones by their first byte.
func (m *Missing) Has(text string) bool {
	if text == "" {
		return true
	}
	return m.begins[text[0]] && len(text) <= m.longest && m.texts[text]
}

// number reads a finite number, as strconv.ParseFloat does, without hexadecimals and underscores.
func number(cell string) (float64, bool) {
	if v, ok := decimal(cell); ok {
		return v, true
	}
	if cell == "" {
		return 0, false
	}
	if c := cell[len(cell)-1]; (c < '0' || c > '9') && c != '.' { // Inf, nan, words
		return 0, false
	}
	if len(cell) > 1 && (cell[1] == 'x' || cell[1] == 'X') || strings.Contains(cell, "_") {
		return 0, false
	}
	v, err := strconv.ParseFloat(cell, 64)
	return v, err == nil && v-v == 0
}

// decimal reads at most 15 digits with a sign and a point. They are a whole number below 2^53
// divided by a power of ten, both of which a float64 has exactly, so that the quotient is rounded
// once, as it should be (Clinger 1990).
func decimal(cell string) (float64, bool) {
	const most = 15
	rest, negative := cell, false
	if rest != "" && (rest[0] == '-' || rest[0] == '+') {
		rest, negative = rest[1:], rest[0] == '-'
	}
	if rest == "" || len(rest) > most+1 {
		return 0, false
	}
	digits, point := uint64(0), -1
	for i := range len(rest) {
		switch c := rest[i]; {
		case c >= '0' && c <= '9':
			digits = digits*10 + uint64(c-'0')
		case c == '.' && point < 0:
			point = i
		default:
			return 0, false
		}
	}
	v := float64(digits)
	switch {
	case point < 0 && len(rest) > most, point >= 0 && len(rest) == 1:
		return 0, false
	case point >= 0:
		v /= tens[len(rest)-1-point]
	}
	if negative {
		v = -v
	}
	return v, true
}

// tens are powers of ten.
var tens = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}
