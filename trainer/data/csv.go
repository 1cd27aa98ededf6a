package data

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/channel"
)

// maxLine bounds one line of CSV.
const maxLine = 16 << 20

// ReadCSV reads lines of numbers with commas between them; a field may stand in double
// quotes. Every line must have as many columns as the layout asks for: the features and,
// unless it is unlabelled, the label. Lines of blanks alone are skipped.
func ReadCSV(r io.Reader, l Layout, visit Visit) error {
	p := newCSVReader(l)
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 1<<16), maxLine)
	for lines.Scan() {
		if err := p.takeLine(lines.Bytes(), visit); err != nil {
			return err
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fault.New(fault.Invalid, "line %d is longer than %d bytes: is this a CSV file?", p.line+1, maxLine)
	} else if err != nil {
		return channel.Broken(err)
	}
	return nil
}

// ParseCSV is ReadCSV of a text that is in memory.
func ParseCSV(text []byte, l Layout, visit Visit) error {
	p := newCSVReader(l)
	for line := range bytes.Lines(text) {
		if err := p.takeLine(line, visit); err != nil {
			return err
		}
	}
	return nil
}

func newCSVReader(l Layout) *csvReader {
	p := &csvReader{layout: l, scale: l.scale(), columns: l.Width + 1, label: -1}
	if l.Unlabelled {
		p.columns--
	}
	p.features = make([]float32, l.Width)
	for i, name := range l.Classes {
		if p.classes == nil {
			p.classes = map[string]float32{}
		}
		p.classes[name] = float32(i)
	}
	return p
}

func (p *csvReader) takeLine(line []byte, visit Visit) error {
	p.line++
	if p.line == 1 {
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	return p.take(line, visit)
}

type csvReader struct {
	layout   Layout
	scale    float32
	columns  int
	label    int // column of the label once known, -1 before
	line     int
	row      int
	started  bool
	fields   [][]byte
	features []float32
	classes  map[string]float32
}

func (p *csvReader) take(line []byte, visit Visit) error {
	if err := p.split(line); err != nil {
		return err
	}
	if !p.started {
		p.started = true
		if header, err := p.start(); err != nil || header {
			return err
		}
	}
	if len(p.fields) != p.columns {
		return fault.New(fault.Invalid, "line %d has %d columns: the network's input needs %d%s",
			p.line, len(p.fields), p.columns, p.withLabel())
	}
	var label float32
	at := 0
	for i, field := range p.fields {
		var err error
		if i == p.label {
			label, err = p.readLabel(field)
		} else {
			p.features[at], err = number(field)
			p.features[at] *= p.scale
			if err == nil && math.IsInf(float64(p.features[at]), 0) {
				err = fault.New(fault.Invalid, "%q divided by the scale %v is too large", clip(field), p.layout.Scale)
			}
			at++
		}
		if err != nil {
			return fault.New(fault.Invalid, "line %d, column %d: %w", p.line, i+1, err)
		}
	}
	p.row++
	return visit(p.row-1, p.features, label)
}

func (p *csvReader) withLabel() string {
	if p.layout.Unlabelled {
		return ", without a label"
	}
	return ", its label included"
}

// start looks at the first line: it may be a header, and then it tells the label's column.
func (p *csvReader) start() (header bool, err error) {
	var names []string
	if p.layout.Header {
		for _, f := range p.fields {
			names = append(names, string(f))
		}
	}
	if p.layout.Unlabelled {
		return p.layout.Header, nil
	}
	p.label, err = p.layout.Label.Resolve(p.columns, names)
	if err != nil {
		return false, fault.New(fault.Invalid, "line %d: %w", p.line, err)
	}
	return p.layout.Header, nil
}

// split cuts a line at its commas into p.fields, without blanks and quotes around them.
func (p *csvReader) split(line []byte) error {
	p.fields = p.fields[:0]
	for {
		line = bytes.TrimLeft(line, " \t")
		var field []byte
		more := false
		if len(line) > 0 && line[0] == '"' {
			end := bytes.IndexByte(line[1:], '"')
			if end < 0 {
				return fault.New(fault.Invalid, "line %d, column %d: a quote is not closed", p.line, len(p.fields)+1)
			}
			field = line[1 : end+1]
			rest := bytes.TrimSpace(line[end+2:])
			if len(rest) > 0 && rest[0] != ',' {
				return fault.New(fault.Invalid, "line %d, column %d: text after the closing quote", p.line, len(p.fields)+1)
			}
			if more = len(rest) > 0; more {
				line = rest[1:]
			}
		} else if comma := bytes.IndexByte(line, ','); comma >= 0 {
			field, line, more = bytes.TrimSpace(line[:comma]), line[comma+1:], true
		} else {
			field = bytes.TrimSpace(line)
		}
		if len(p.fields) > p.columns+1 {
			return fault.New(fault.Invalid, "line %d has more than %d columns: the network's input needs %d%s",
				p.line, p.columns+1, p.columns, p.withLabel())
		}
		p.fields = append(p.fields, field)
		if !more {
			return nil
		}
	}
}

func (p *csvReader) readLabel(field []byte) (float32, error) {
	if class, ok := p.classes[string(field)]; ok {
		return class, nil
	}
	if p.classes != nil {
		return 0, fault.New(fault.Invalid, "label %q is not one of the classes %q", clip(field), p.layout.Classes)
	}
	v, err := number(field)
	if err != nil {
		return 0, err
	}
	return v, checkLabel(v, p.layout.ClassCount)
}

// ParseLabel reads a label: the number of a class by its name or number, or a number.
func (l Layout) ParseLabel(text string) (float32, error) {
	if i := slices.Index(l.Classes, text); i >= 0 {
		return float32(i), nil
	}
	if len(l.Classes) > 0 {
		return 0, fault.New(fault.Invalid, "label %q is not one of the classes %q", clip([]byte(text)), l.Classes)
	}
	v, err := number([]byte(text))
	if err == nil {
		err = checkLabel(v, l.ClassCount)
	}
	return v, err
}

// checkLabel refuses a label that is not the number of a class; classes is 0 where any
// number is a label.
func checkLabel(v float32, classes int) error {
	if classes > 0 && (v < 0 || v >= float32(classes) || v != float32(int(v))) {
		return fault.New(fault.Invalid, "label %v: give a class number, 0 to %d", v, classes-1)
	}
	return nil
}

func number(field []byte) (float32, error) {
	if v, ok := small(field); ok {
		return v, nil
	}
	if len(field) == 0 {
		return 0, fault.New(fault.Invalid, "empty: fill in a number or leave the row out")
	}
	v, err := strconv.ParseFloat(string(field), 32)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fault.New(fault.Invalid, "%q is not a finite number", clip(field))
	}
	return float32(v), nil
}

// small reads up to seven plain digits, which float32 holds exactly.
func small(field []byte) (float32, bool) {
	if len(field) == 0 || len(field) > 7 {
		return 0, false
	}
	n := 0
	for _, c := range field {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return float32(n), true
}

// clip shortens what an error quotes.
func clip(field []byte) string {
	if len(field) > 40 {
		return string(field[:40]) + "…"
	}
	return string(field)
}
