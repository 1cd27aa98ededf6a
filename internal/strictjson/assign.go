package strictjson

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/clary-ml/clary/cluster"
)

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

type assigner struct {
	problems cluster.Problems
	more     int // beyond MaxProblems
}

func (a *assigner) add(path, format string, args ...any) {
	if len(a.problems) >= MaxProblems {
		a.more++
		return
	}
	a.problems.Add(path, format, args...)
}

func (a *assigner) found() cluster.Problems {
	if a.more > 0 {
		a.problems.Add("", "and %d more mistakes", a.more)
	}
	return a.problems
}

// assign stores the value of n in v, or says why it cannot.
func (a *assigner) assign(path string, n node, v reflect.Value) {
	if n.kind == 0 && n.value == nil { // null: absent
		return
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		a.assign(path, n, v.Elem())
		return
	}
	if a.custom(path, n, v) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		a.structure(path, n, v)
	case reflect.Map:
		a.dictionary(path, n, v)
	case reflect.Slice:
		a.list(path, n, v)
	case reflect.Interface:
		a.anything(path, n, v)
	default:
		a.scalar(path, n, v)
	}
}

// custom lets a type that reads itself do so.
func (a *assigner) custom(path string, n node, v reflect.Value) bool {
	pointer := v.Addr()
	switch {
	case pointer.Type().Implements(jsonUnmarshaler):
		if err := pointer.Interface().(json.Unmarshaler).UnmarshalJSON(n.raw); err != nil {
			a.add(path, "%s", err)
		}
	case pointer.Type().Implements(textUnmarshaler):
		text, ok := n.value.(string)
		if !ok {
			a.add(path, "takes a text, not %s", n.describe())
		} else if err := pointer.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			a.add(path, "%s", err)
		}
	default:
		return false
	}
	return true
}

func (a *assigner) structure(path string, n node, v reflect.Value) {
	if n.kind != '{' {
		a.add(path, "takes an object, not %s", n.describe())
		return
	}
	known := Fields(v.Type())
	seen := make(map[string]bool, len(n.fields))
	for _, f := range n.fields {
		at := join(path, cluster.Clip(f.name))
		if seen[f.name] {
			a.add(at, "is there twice")
			continue
		}
		seen[f.name] = true
		index, ok := known[f.name]
		if !ok {
			a.add(at, "unknown field%s", remedy(f.name, known))
			continue
		}
		a.assign(at, f.node, fieldAt(v, index))
	}
}

// fieldAt is v.FieldByIndex, making the embedded pointers on the way.
func fieldAt(v reflect.Value, index []int) reflect.Value {
	for i, x := range index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(x)
	}
	return v
}

// fieldsOf remembers what Fields found: a type's fields never change.
var fieldsOf sync.Map // reflect.Type → map[string][]int

// Fields returns the json names of a struct's fields, those of embedded structs
// included, with the index for reflect.Value.FieldByIndex. An outer field hides an
// embedded one of the same name. The map is not to be changed.
func Fields(t reflect.Type) map[string][]int {
	if known, ok := fieldsOf.Load(t); ok {
		return known.(map[string][]int)
	}
	fields := findFields(t)
	fieldsOf.Store(t, fields)
	return fields
}

func findFields(t reflect.Type) map[string][]int {
	fields := map[string][]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case tag == "-" || f.PkgPath != "" && !f.Anonymous:
		case f.Anonymous && name == "" && inner.Kind() == reflect.Struct:
			for key, index := range Fields(inner) {
				if old, taken := fields[key]; !taken || len(old) > 1+len(index) {
					fields[key] = append([]int{i}, index...)
				}
			}
		default:
			if name == "" {
				name = f.Name
			}
			fields[name] = []int{i}
		}
	}
	return fields
}

func (a *assigner) dictionary(path string, n node, v reflect.Value) {
	if n.kind != '{' {
		a.add(path, "takes an object, not %s", n.describe())
		return
	}
	result := reflect.MakeMapWithSize(v.Type(), len(n.fields))
	for _, f := range n.fields {
		at := join(path, cluster.Clip(f.name))
		key := reflect.ValueOf(f.name).Convert(v.Type().Key())
		if result.MapIndex(key).IsValid() {
			a.add(at, "is there twice")
			continue
		}
		item := reflect.New(v.Type().Elem()).Elem()
		a.assign(at, f.node, item)
		result.SetMapIndex(key, item)
	}
	v.Set(result)
}

func (a *assigner) list(path string, n node, v reflect.Value) {
	if n.kind != '[' {
		a.add(path, "takes a list, not %s", n.describe())
		return
	}
	result := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		a.assign(join(path, fmt.Sprintf("[%d]", i)), item, result.Index(i))
	}
	v.Set(result)
}

// anything fills an interface value as encoding/json would, once no key is there twice.
func (a *assigner) anything(path string, n node, v reflect.Value) {
	before := len(a.problems) + a.more
	a.unique(path, n)
	if len(a.problems)+a.more > before {
		return
	}
	if err := json.Unmarshal(n.raw, v.Addr().Interface()); err != nil {
		a.add(path, "%s", err)
	}
}

func (a *assigner) unique(path string, n node) {
	seen := map[string]bool{}
	for _, f := range n.fields {
		at := join(path, cluster.Clip(f.name))
		if seen[f.name] {
			a.add(at, "is there twice")
		}
		seen[f.name] = true
		a.unique(at, f.node)
	}
	for i, item := range n.items {
		a.unique(join(path, fmt.Sprintf("[%d]", i)), item)
	}
}

func (a *assigner) scalar(path string, n node, v reflect.Value) {
	number, isNumber := n.value.(json.Number)
	switch v.Kind() {
	case reflect.String:
		text, ok := n.value.(string)
		if !ok {
			a.add(path, "takes a text, not %s", n.describe())
			return
		}
		v.SetString(text)
	case reflect.Bool:
		flag, ok := n.value.(bool)
		if !ok {
			a.add(path, "takes true or false, not %s", n.describe())
			return
		}
		v.SetBool(flag)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		value, err := strconv.ParseInt(number.String(), 10, 64)
		if !isNumber || err != nil || v.OverflowInt(value) {
			a.add(path, "takes a whole number that fits %d bits, not %s", v.Type().Bits(), n.describe())
			return
		}
		v.SetInt(value)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		value, err := strconv.ParseUint(number.String(), 10, 64)
		if !isNumber || err != nil || v.OverflowUint(value) {
			a.add(path, "takes a whole number from 0 that fits %d bits, not %s", v.Type().Bits(), n.describe())
			return
		}
		v.SetUint(value)
	case reflect.Float32, reflect.Float64:
		value, err := strconv.ParseFloat(number.String(), 64)
		if !isNumber || err != nil || v.OverflowFloat(value) {
			a.add(path, "takes a number, not %s", n.describe())
			return
		}
		v.SetFloat(value)
	default:
		panic("strictjson: cannot decode into " + v.Type().String())
	}
}

// remedy names the nearest right field, or all of them if none is near.
func remedy(name string, known map[string][]int) string {
	names := make([]string, 0, len(known))
	for candidate := range known {
		names = append(names, candidate)
	}
	slices.Sort(names)
	if near := Nearest(name, names); near != "" {
		return fmt.Sprintf(": did you mean %q?", near)
	}
	return ": the fields here are " + strings.Join(names, ", ")
}
