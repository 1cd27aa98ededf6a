// Package strictjson decodes JSON that a person wrote. It finds every mistake at once,
// each with the path of its field: unknown fields (with the nearest right name),
// wrong types, numbers that do not fit, keys that are there twice, text after the end.
//
// Fields are matched by their json tags, in exactly that spelling. A type that has an
// UnmarshalJSON or UnmarshalText of its own is asked to read its value, and its error
// is reported under the field. null means that the field is absent.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/clary-ml/clary/cluster"
)

// Limits on what Decode reads.
const (
	MaxSize     = 2 << 20 // bytes of the whole text
	MaxDepth    = 32      // objects and arrays within one another
	MaxProblems = 50      // mistakes reported; what is beyond them is counted
)

// Decode reads data into v, a pointer to a struct, and returns every mistake. If there
// is any, v must not be used.
func Decode(data []byte, v any) cluster.Problems {
	var p cluster.Problems
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		panic("strictjson: Decode needs a pointer to decode into")
	}
	if len(data) > MaxSize {
		p.Add("", "%d bytes: at most %d", len(data), MaxSize)
		return p
	}
	root, err := parse(data)
	if err != nil {
		p.Add("", "%s", err)
		return p
	}
	a := assigner{}
	a.assign("", root, target.Elem())
	return a.found()
}

// node is one JSON value with where it stands in the text.
type node struct {
	value  any     // string, json.Number, bool or nil; unused for objects and arrays
	kind   byte    // '{', '[' or 0 for the rest
	fields []field // of an object, in the order of the text
	items  []node  // of an array
	raw    []byte
}

type field struct {
	name string
	node node
}

// parse checks the syntax, then builds the tree: of valid JSON, each value's first byte
// says what it is.
func parse(data []byte) (node, error) {
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		return node{}, located(data, err)
	}
	r := treeReader{text: data}
	return r.value(0)
}

// located adds the line to an error of syntax.
func located(data []byte, err error) error {
	at := len(data)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = min(int(syntax.Offset), at)
	}
	line := 1 + bytes.Count(data[:at], []byte("\n"))
	if strings.HasPrefix(err.Error(), "unexpected end") {
		return fmt.Errorf("is not JSON: line %d: ends too early", line)
	}
	return fmt.Errorf("is not JSON: line %d: %w", line, err)
}

// treeReader walks over text whose syntax was checked.
type treeReader struct {
	text []byte
	at   int
}

// skip passes over white space, and over one of the separators if it comes then.
func (r *treeReader) skip(separators string) {
	for ; ; r.at++ {
		switch c := r.text[r.at]; {
		case c == ' ', c == '\t', c == '\n', c == '\r':
		case separators != "" && strings.IndexByte(separators, c) >= 0:
			separators = ""
		default:
			return
		}
	}
}

func (r *treeReader) value(depth int) (node, error) {
	r.skip("")
	start := r.at
	switch r.text[start] {
	case '{', '[':
		n, err := r.container(depth)
		n.raw = r.text[start:r.at]
		return n, err
	case '"':
		text := r.string()
		return node{value: text, raw: r.text[start:r.at]}, nil
	}
	for r.at < len(r.text) && strings.IndexByte(" \t\r\n,]}", r.text[r.at]) < 0 {
		r.at++
	}
	n := node{raw: r.text[start:r.at]}
	switch n.raw[0] {
	case 't', 'f':
		n.value = n.raw[0] == 't'
	case 'n':
	default:
		n.value = json.Number(n.raw)
	}
	return n, nil
}

func (r *treeReader) container(depth int) (node, error) {
	if depth >= MaxDepth {
		return node{}, fmt.Errorf("more than %d objects and arrays within one another", MaxDepth)
	}
	n := node{kind: r.text[r.at]}
	r.at++
	for r.skip(","); r.text[r.at] != '}' && r.text[r.at] != ']'; r.skip(",") {
		var name string
		if n.kind == '{' {
			name = r.string()
			r.skip(":")
		}
		item, err := r.value(depth + 1)
		if err != nil {
			return node{}, err
		}
		if n.kind == '{' {
			n.fields = append(n.fields, field{name, item})
		} else {
			n.items = append(n.items, item)
		}
	}
	r.at++
	return n, nil
}

// string reads a string. What holds an escape, or is not ASCII, is left to encoding/json.
func (r *treeReader) string() string {
	start, plain := r.at, true
	for r.at++; r.text[r.at] != '"'; r.at++ {
		if c := r.text[r.at]; c == '\\' || c >= utf8.RuneSelf {
			plain = false
			if c == '\\' {
				r.at++
			}
		}
	}
	r.at++
	if plain {
		return string(r.text[start+1 : r.at-1])
	}
	var text string
	_ = json.Unmarshal(r.text[start:r.at], &text) // its syntax was checked
	return text
}

func (n node) describe() string {
	switch value := n.value.(type) {
	case string:
		return fmt.Sprintf("the text %q", cluster.Clip(value))
	case json.Number:
		return "the number " + cluster.Clip(value.String())
	case bool:
		return fmt.Sprint(value)
	}
	switch n.kind {
	case '{':
		return "an object"
	case '[':
		return "a list"
	}
	return "null"
}

func join(path, name string) string {
	switch {
	case path == "":
		return name
	case strings.HasPrefix(name, "["):
		return path + name
	}
	return path + "." + name
}
