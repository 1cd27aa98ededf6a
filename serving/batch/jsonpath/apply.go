package jsonpath

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
)

// Columns selects fields of a row of CSV.
func (p Path) Columns(row [][]byte) ([][]byte, error) {
	if p.All() {
		return row, nil
	}
	if err := p.CheckColumns(); err != nil {
		return nil, err
	}
	s := p.steps[0]
	if s.all {
		return row, nil
	}
	var picked [][]byte
	for _, i := range s.pick(len(row)) {
		picked = append(picked, row[i])
	}
	if len(picked) == 0 {
		return nil, fault.New(fault.Invalid, "the filter selects no column of a row that has %d", len(row))
	}
	return picked, nil
}

// JSON selects from a JSON text. A path whose steps each name one thing gives that thing; it
// is an error if it is not there. Names that end a path give an object of those that are
// there; every other path gives a list.
func (p Path) JSON(text []byte) ([]byte, error) {
	text = bytes.TrimSpace(text)
	if !json.Valid(text) {
		return nil, fault.New(fault.Invalid, "it is not valid JSON")
	}
	if p.All() {
		return text, nil
	}
	values, list := [][]byte{text}, false
	for i, s := range p.steps {
		last := i == len(p.steps)-1
		var next [][]byte
		for _, value := range values {
			found, err := s.from(value, last)
			if err != nil {
				return nil, err
			}
			if next = append(next, found...); len(next) > maxValues {
				return nil, fault.New(fault.Invalid, "the filter selects more than %d values", maxValues)
			}
		}
		list = list || !s.one() && !(last && len(s.names) > 1)
		values = next
	}
	if list {
		return enclose('[', values, ']'), nil
	}
	if len(values) == 0 {
		return nil, fault.New(fault.Invalid, "the filter selects nothing")
	}
	return values[0], nil
}

// from selects from one value. What is no object has no names, what is no list no places.
func (s step) from(value []byte, last bool) ([][]byte, error) {
	switch value[0] {
	case '{':
		members, err := Members(value)
		if err != nil {
			return nil, err
		}
		return s.members(members, last), nil
	case '[':
		elements, err := elements(value)
		if err != nil || s.all {
			return elements, err
		}
		var picked [][]byte
		for _, i := range s.pick(len(elements)) {
			picked = append(picked, elements[i])
		}
		return picked, nil
	}
	return nil, nil
}

func (s step) members(members []Member, last bool) [][]byte {
	var picked [][]byte
	if s.all {
		for _, m := range members {
			picked = append(picked, m.Value)
		}
		return picked
	}
	for _, name := range s.names {
		at := slices.IndexFunc(members, func(m Member) bool { return m.Name == name })
		if at < 0 {
			continue
		}
		if last && len(s.names) > 1 {
			picked = append(picked, append(append(Quote(name), ':'), members[at].Value...))
			continue
		}
		picked = append(picked, members[at].Value)
	}
	if last && len(s.names) > 1 {
		return [][]byte{enclose('{', picked, '}')}
	}
	return picked
}

func enclose(open byte, parts [][]byte, end byte) []byte {
	text := append([]byte{open}, bytes.Join(parts, []byte{','})...)
	return append(text, end)
}

// Quote writes a text as JSON, and leaves <, > and & as they are.
func Quote(text string) []byte {
	var quoted bytes.Buffer
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // a text always can
	return bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))
}

// Member is one of an object's, its value as it was written.
type Member struct {
	Name  string
	Value []byte
}

// Members reads a JSON object. Of a name that is there twice the last counts, where the first
// stood.
func Members(object []byte) ([]Member, error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil {
		return nil, broken(err)
	}
	var members []Member
	at := map[string]int{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, broken(err)
		}
		name, isText := key.(string)
		if !isText {
			return nil, fault.New(fault.Invalid, "it is no JSON object")
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, broken(err)
		}
		if i, twice := at[name]; twice {
			members[i].Value = value
			continue
		}
		at[name] = len(members)
		members = append(members, Member{name, value})
	}
	return members, nil
}

func elements(list []byte) ([][]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(list))
	if _, err := decoder.Token(); err != nil {
		return nil, broken(err)
	}
	var all [][]byte
	for decoder.More() {
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, broken(err)
		}
		all = append(all, value)
	}
	return all, nil
}

func broken(err error) error { return fault.New(fault.Invalid, "it is not valid JSON: %w", err) }
