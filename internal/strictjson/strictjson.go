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
	"io"
	"reflect"
	"strings"

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

func parse(data []byte) (node, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	reader := treeReader{decoder: decoder, data: data}
	root, err := reader.value(0)
	if err != nil {
		return node{}, reader.locate(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return node{}, reader.locate(errors.New("something follows the end of the value"))
	}
	return root, nil
}

type treeReader struct {
	decoder *json.Decoder
	data    []byte
}

// locate adds the line to an error of syntax.
func (r treeReader) locate(err error) error {
	at := min(int(r.decoder.InputOffset()), len(r.data))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("ends too early")
	}
	return fmt.Errorf("is not JSON: line %d: %w", 1+bytes.Count(r.data[:at], []byte("\n")), err)
}

func (r treeReader) value(depth int) (node, error) {
	token, err := r.decoder.Token()
	if err != nil {
		return node{}, err
	}
	end := int(r.decoder.InputOffset())
	delim, isDelim := token.(json.Delim)
	if !isDelim {
		return node{value: token, raw: r.data[r.tokenStart(token, end):end]}, nil
	}
	if depth >= MaxDepth {
		return node{}, fmt.Errorf("more than %d objects and arrays within one another", MaxDepth)
	}
	n, start := node{kind: byte(delim)}, end-1
	for r.decoder.More() {
		var item field
		if delim == '{' {
			key, err := r.decoder.Token()
			if err != nil {
				return node{}, err
			}
			item.name = key.(string)
		}
		if item.node, err = r.value(depth + 1); err != nil {
			return node{}, err
		}
		if delim == '{' {
			n.fields = append(n.fields, item)
		} else {
			n.items = append(n.items, item.node)
		}
	}
	if _, err := r.decoder.Token(); err != nil { // the closing delimiter
		return node{}, err
	}
	n.raw = r.data[start:r.decoder.InputOffset()]
	return n, nil
}

// tokenStart finds where a scalar that ends at end began. Strings may hold escapes, so
// that their length in the text is looked for from the quote that ends them.
func (r treeReader) tokenStart(token json.Token, end int) int {
	switch token := token.(type) {
	case json.Number:
		return end - len(token)
	case bool:
		if token {
			return end - len("true")
		}
		return end - len("false")
	case nil:
		return end - len("null")
	}
	start := end - 2 // the last byte before the closing quote, or the opening quote
	for ; start > 0; start-- {
		if r.data[start] != '"' {
			continue
		}
		escapes := 0
		for start-1-escapes >= 0 && r.data[start-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			break
		}
	}
	return start
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
