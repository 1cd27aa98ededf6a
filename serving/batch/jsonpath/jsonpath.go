// Package jsonpath is the part of JSONPath that batch transforms filter with: $, .name, *,
// ['a','b'], [n,m] and [a:b], with negative numbers counting from the end. It selects from
// JSON texts and from rows of CSV without decoding what it selects, so that numbers, order
// and spelling stay as they were.
package jsonpath

import (
	"strconv"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// Bounds on a path.
const (
	maxText   = 1024
	maxSteps  = 64
	maxValues = 1 << 20 // selected by one step: a path may name a place twice at every step
)

// Path is a parsed path. The zero Path selects all.
type Path struct{ steps []step }

// step selects from one value: names of an object, places of an array, or all of either.
type step struct {
	all    bool
	names  []string
	places []place
}

// place is one element, or those from one on and before another.
type place struct {
	from, to         int
	isRange          bool
	openFrom, openTo bool
}

// one reports whether a step selects a single value at most.
func (s step) one() bool {
	return !s.all && len(s.names)+len(s.places) == 1 && (len(s.places) == 0 || !s.places[0].isRange)
}

// All reports whether the path selects everything as it is.
func (p Path) All() bool { return len(p.steps) == 0 }

// Parse reads a path; "" is the same as "$".
func Parse(text string) (Path, error) {
	if text == "" {
		return Path{}, nil
	}
	r := &reader{text: text}
	if len(text) > maxText {
		return Path{}, fault.New(fault.Invalid, "the path has %d bytes: at most %d", len(text), maxText)
	}
	if !r.eat('$') {
		return Path{}, r.wrong("a path begins with $")
	}
	var p Path
	for r.at < len(r.text) {
		if len(p.steps) == maxSteps {
			return Path{}, r.wrong("a path has at most 64 steps")
		}
		s, err := r.step()
		if err != nil {
			return Path{}, err
		}
		p.steps = append(p.steps, s)
	}
	return p, nil
}

// CheckColumns reports a path that can select nothing from a row of CSV, which is a list.
func (p Path) CheckColumns() error {
	switch {
	case len(p.steps) > 1:
		return fault.New(fault.Invalid, "a row of CSV has columns and nothing below them: one step is all there is, like $[0,2:]")
	case len(p.steps) == 1 && len(p.steps[0].names) > 0:
		return fault.New(fault.Invalid, "columns of CSV have numbers, no names: count from 0, like $[0,2:]")
	}
	return nil
}

type reader struct {
	text string
	at   int
}

func (r *reader) wrong(why string) error {
	return fault.New(fault.Invalid, "%q at byte %d: %s; what there is: $, .name, *, ['a','b'], [n,m] and [a:b]", r.text, r.at, why)
}

func (r *reader) peek() byte {
	if r.at < len(r.text) {
		return r.text[r.at]
	}
	return 0
}

func (r *reader) eat(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

func (r *reader) blanks() {
	for r.peek() == ' ' {
		r.at++
	}
}

func (r *reader) step() (step, error) {
	switch {
	case r.eat('.'):
		if r.eat('*') {
			return step{all: true}, nil
		}
		from := r.at
		for r.at < len(r.text) && !strings.ContainsRune(".[]*'\"(),:?@ ", rune(r.text[r.at])) {
			r.at++
		}
		if r.at == from {
			return step{}, r.wrong("a name is missing behind the dot")
		}
		return step{names: []string{r.text[from:r.at]}}, nil
	case r.eat('['):
		return r.bracket()
	}
	return step{}, r.wrong("a step begins with a dot or a bracket")
}

func (r *reader) bracket() (step, error) {
	var s step
	r.blanks()
	if r.eat('*') {
		s.all = true
		r.blanks()
		if !r.eat(']') {
			return step{}, r.wrong("the bracket is not closed")
		}
		return s, nil
	}
	for {
		r.blanks()
		var err error
		if c := r.peek(); c == '\'' || c == '"' {
			var name string
			if name, err = r.name(c); err == nil {
				s.names = append(s.names, name)
			}
		} else {
			var p place
			if p, err = r.place(); err == nil {
				s.places = append(s.places, p)
			}
		}
		if err != nil {
			return step{}, err
		}
		r.blanks()
		switch {
		case r.eat(']'):
			if len(s.names) > 0 && len(s.places) > 0 {
				return step{}, r.wrong("names and numbers stand in one bracket")
			}
			return s, nil
		case !r.eat(','):
			return step{}, r.wrong("a comma or a closing bracket is missing")
		}
	}
}

// name is in quotes; a backslash takes the next byte as it is.
func (r *reader) name(quote byte) (string, error) {
	r.at++
	var name strings.Builder
	for r.at < len(r.text) {
		c := r.text[r.at]
		r.at++
		switch {
		case c == quote:
			return name.String(), nil
		case c == '\\' && r.at < len(r.text):
			name.WriteByte(r.text[r.at])
			r.at++
		default:
			name.WriteByte(c)
		}
	}
	return "", r.wrong("the quote is not closed")
}

func (r *reader) place() (place, error) {
	var p place
	var err error
	if p.from, p.openFrom, err = r.number(); err != nil {
		return place{}, err
	}
	r.blanks()
	if !r.eat(':') {
		if p.openFrom {
			return place{}, r.wrong("a number, a name in quotes or * is missing")
		}
		return p, nil
	}
	p.isRange = true
	r.blanks()
	p.to, p.openTo, err = r.number()
	return p, err
}

func (r *reader) number() (n int, missing bool, err error) {
	from := r.at
	r.eat('-')
	for c := r.peek(); c >= '0' && c <= '9'; c = r.peek() {
		r.at++
	}
	if r.at == from {
		return 0, true, nil
	}
	n, err = strconv.Atoi(r.text[from:r.at])
	if err != nil || n > 1<<30 || n < -1<<30 {
		return 0, false, r.wrong("the number is no place in a list")
	}
	return n, false, nil
}

// pick returns the places in a list of n that are there, in the order in which they were
// named.
func (s step) pick(n int) []int {
	var picked []int
	for _, p := range s.places {
		from, to := counted(p.from, n), counted(p.to, n)
		if !p.isRange {
			if from >= 0 && from < n {
				picked = append(picked, from)
			}
			continue
		}
		if p.openFrom {
			from = 0
		}
		if p.openTo {
			to = n
		}
		for i := max(from, 0); i < min(to, n); i++ {
			picked = append(picked, i)
		}
	}
	return picked
}

func counted(i, n int) int {
	if i < 0 {
		return i + n
	}
	return i
}
