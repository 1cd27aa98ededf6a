package expr

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Type is what a value is.
type Type uint8

const (
	// None is no value: the zero Value.
	None Type = iota
	// Number is a float64.
	Number
	// Text is a string.
	Text
	// Truth is true or false.
	Truth
	// Any is one of the others, known only when evaluated: such values can be compared
	// with == and != only.
	Any
)

var typeNames = [...]string{"nothing", "a number", "a text", "true or false", "a number, text or truth"}

// String is how a message names the type.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return "type " + strconv.Itoa(int(t))
}

// Value is a number, a text or a truth. Values are equal (==) if they are the same; the
// zero Value is none of them.
type Value struct {
	kind   Type
	number float64
	text   string
}

// Num makes a number.
func Num(f float64) Value { return Value{kind: Number, number: f + 0} }

// Str makes a text.
func Str(s string) Value { return Value{kind: Text, text: s} }

// Bool makes a truth.
func Bool(b bool) Value {
	v := Value{kind: Truth}
	if b {
		v.number = 1
	}
	return v
}

// Type says what the value is.
func (v Value) Type() Type { return v.kind }

// Number is the value of a number, NaN for all else.
func (v Value) Number() float64 {
	if v.kind != Number {
		return math.NaN()
	}
	return v.number
}

// Truth is the value of a truth, false for all else.
func (v Value) Truth() bool { return v.kind == Truth && v.number != 0 }

// IsZero reports that there is no value.
func (v Value) IsZero() bool { return v.kind == None }

// String is the value as a hyperparameter is written: numbers in the shortest form that
// reads back the same, texts as they are.
func (v Value) String() string {
	switch v.kind {
	case Number:
		return formatNumber(v.number)
	case Truth:
		return strconv.FormatBool(v.number != 0)
	}
	return v.text
}

// formatNumber writes whole numbers without an exponent as long as they are exact.
func formatNumber(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// MarshalJSON writes a JSON number, string or boolean; nothing is null.
func (v Value) MarshalJSON() ([]byte, error) {
	switch v.kind {
	case None:
		return []byte("null"), nil
	case Text:
		return json.Marshal(v.text)
	case Number:
		if math.IsNaN(v.number) || math.IsInf(v.number, 0) {
			return nil, fmt.Errorf("%v has no form in JSON", v.number)
		}
	}
	return []byte(v.String()), nil
}

// UnmarshalJSON reads a JSON number, string or boolean. null leaves the value as it is.
func (v *Value) UnmarshalJSON(text []byte) error {
	var got any
	if err := json.Unmarshal(text, &got); err != nil {
		return err
	}
	switch got := got.(type) {
	case nil:
	case float64:
		*v = Num(got)
	case string:
		*v = Str(got)
	case bool:
		*v = Bool(got)
	default:
		return errors.New("give a number, a text, or true or false")
	}
	return nil
}
