package space

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/expr"
)

// ParseShort reads a parameter in the short form that command lines use:
//
//	lr=log:1e-4..1e-1          a number on a log scale (or linear:, reverse_log:, logit:)
//	dropout=0.0..0.5           a number
//	depth=1..8                 a whole number, as both bounds are written as one
//	rate=float:0..1            a number all the same; and int: is the other way
//	units=32..512:32           in steps of 32
//	act=relu,tanh              one of several, in no order
//	batch=ordered:16,32,64     one of several, of which neighbours are alike
//	seed=7                     always the same
//
// Two words may follow, as in "momentum=0.0..0.99 default 0.9 if optimizer=sgd,nesterov":
// where to start, and for which values of another parameter it is there. A value that
// reads as a number, true or false is one; in double quotes, with JSON's escapes, it is a
// text, whatever it holds. The form is read only: what it says may still be no parameter
// of a space, see Spec.Validate.
func ParseShort(text string) (Parameter, error) {
	if !utf8.ValidString(text) {
		return Parameter{}, fault.New(fault.Invalid, "%q is not UTF-8", cluster.Clip(text))
	}
	name, rest, found := strings.Cut(text, "=")
	name = strings.TrimSpace(name)
	if !found || name == "" {
		return Parameter{}, fault.New(fault.Invalid, "%q is not NAME=VALUES, as in lr=log:1e-4..1e-1 or act=relu,tanh", cluster.Clip(text))
	}
	p, err := parseDomain(rest)
	if err != nil {
		return Parameter{}, fault.New(fault.Invalid, "%s: %w", cluster.Clip(name), err)
	}
	p.Name = name
	return p, nil
}

func parseDomain(text string) (Parameter, error) {
	words, err := shortWords(text)
	if err != nil {
		return Parameter{}, err
	}
	if len(words) == 0 {
		return Parameter{}, fault.New(fault.Invalid, "it has no values: give a range as in 1..8, or choices as in relu,tanh")
	}
	p, err := parseValues(words[0])
	if err != nil {
		return p, err
	}
	for words = words[1:]; len(words) > 0; words = words[2:] {
		if len(words) == 1 {
			return p, fault.New(fault.Invalid, "%q is left over: default VALUE or if NAME=VALUE,VALUE may follow, and a text with blanks stands in double quotes", cluster.Clip(words[0]))
		}
		switch {
		case words[0] == "default" && p.Default.IsZero():
			p.Default, err = shortValue(words[1])
		case words[0] == "if" && p.When == nil:
			p.When, err = parseWhen(words[1])
		default:
			err = fault.New(fault.Invalid, "%q is left over: default VALUE or if NAME=VALUE,VALUE may follow, each once, and a text with blanks stands in double quotes", cluster.Clip(words[0]))
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

func parseWhen(text string) (*When, error) {
	name, rest, found := strings.Cut(text, "=")
	if !found || name == "" || rest == "" {
		return nil, fault.New(fault.Invalid, "if %s: give NAME=VALUE,VALUE", cluster.Clip(text))
	}
	values, err := shortValues(splitShort(rest, ','))
	return &When{Parameter: name, In: values}, err
}

// parseValues reads what stands after the name: prefixes, and a range, choices or a value.
func parseValues(text string) (Parameter, error) {
	var p Parameter
	for {
		word, rest, found := strings.Cut(text, ":")
		switch {
		case found && p.Type == "" && slices.Contains(shortTypes, Type(word)):
			p.Type = Type(word)
		case found && p.Scale == "" && warps[Scale(word)].within != nil:
			p.Scale = Scale(word)
		default:
			return parsePlain(p, text)
		}
		text = rest
	}
}

var shortTypes = []Type{Float, Int, Ordered, Categorical, Constant}

func parsePlain(p Parameter, text string) (Parameter, error) {
	items := splitShort(text, ',')
	low, high, ranged := strings.Cut(text, "..")
	if ranged && len(items) == 1 && text[0] != '"' {
		return parseRange(p, low, high)
	}
	if p.Scale != "" {
		return p, fault.New(fault.Invalid, "%q: a scale is for a range, as in %s:0.1..0.9; a text with a colon stands in double quotes", cluster.Clip(text), p.Scale)
	}
	values, err := shortValues(items)
	if err != nil {
		return p, err
	}
	if p.Type == "" && len(values) > 1 {
		p.Type = Categorical
	}
	switch p.Type {
	case Ordered, Categorical:
		p.Choices = values
		return p, nil
	case "", Constant:
		if len(values) == 1 {
			p.Type, p.Value = Constant, values[0]
			return p, nil
		}
	}
	remedy := "a range, as in 1..8"
	if p.Type == Constant {
		remedy = "one value"
	}
	return p, fault.New(fault.Invalid, "%q: %s: is for %s", cluster.Clip(text), p.Type, remedy)
}

func parseRange(p Parameter, low, high string) (Parameter, error) {
	high, step, stepped := strings.Cut(high, ":")
	bounds := []string{low, high}
	if stepped {
		bounds = append(bounds, step)
	}
	whole := true
	numbers := make([]*float64, 3)
	for i, text := range bounds {
		v, err := shortNumber(text)
		if err != nil {
			return p, err
		}
		numbers[i] = &v
		whole = whole && strings.Trim(text, "+-0123456789") == ""
	}
	p.Low, p.High, p.Step = numbers[0], numbers[1], numbers[2]
	switch {
	case p.Type == "" && whole:
		p.Type = Int
	case p.Type == "":
		p.Type = Float
	case p.Type != Float && p.Type != Int:
		return p, fault.New(fault.Invalid, "%q: a range is float or int, not %s", cluster.Clip(low+".."+high), p.Type)
	}
	return p, nil
}

func shortNumber(text string) (float64, error) {
	if text == "" {
		return 0, fault.New(fault.Invalid, "a bound is missing: a range is LOW..HIGH or LOW..HIGH:STEP; a text that holds .. stands in double quotes")
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !decimal(text) || math.IsInf(v, 0) {
		return 0, fault.New(fault.Invalid, "%q is no number: a range is LOW..HIGH or LOW..HIGH:STEP; a text that holds .. stands in double quotes", cluster.Clip(text))
	}
	return v + 0, nil
}

// decimal leaves out NaN, hexadecimal numbers and the like.
func decimal(text string) bool { return strings.Trim(text, "+-.0123456789eE") == "" }

func shortValues(items []string) ([]expr.Value, error) {
	values := make([]expr.Value, len(items))
	for i, item := range items {
		low, high, ranged := strings.Cut(item, "..")
		if ranged && item[0] != '"' && (isNumber(low) || isNumber(high)) {
			return nil, fault.New(fault.Invalid, "%q: a range stands alone, not among choices", cluster.Clip(item))
		}
		var err error
		if values[i], err = shortValue(item); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func isNumber(text string) bool {
	_, err := shortNumber(text)
	return err == nil
}

func shortValue(text string) (expr.Value, error) {
	if text == "" {
		return expr.Value{}, fault.New(fault.Invalid, "a value is empty: there is a comma too many, or an empty text, which is \"\"")
	}
	if text[0] == '"' {
		var unquoted string
		if err := json.Unmarshal([]byte(text), &unquoted); err != nil {
			return expr.Value{}, fault.New(fault.Invalid, "%s is no text in double quotes, with JSON's escapes", cluster.Clip(text))
		}
		return expr.Str(unquoted), nil
	}
	switch {
	case text == "true" || text == "false":
		return expr.Bool(text == "true"), nil
	case isNumber(text):
		v, _ := shortNumber(text)
		return expr.Num(v), nil
	case strings.ContainsRune(text, '"'):
		return expr.Value{}, fault.New(fault.Invalid, "%s: a text with a double quote stands in double quotes itself, as in \"a\\\"b\"", cluster.Clip(text))
	}
	return expr.Str(text), nil
}

// shortWords splits at blanks that are not in quotes and not beside a comma.
func shortWords(text string) ([]string, error) {
	var words []string
	for _, word := range splitShort(text, ' ') {
		last := len(words) - 1
		switch {
		case word == "":
		case last >= 0 && (strings.HasSuffix(words[last], ",") || word[0] == ','):
			words[last] += word
		default:
			words = append(words, word)
		}
	}
	for _, word := range words {
		if unclosed(word) {
			return nil, fault.New(fault.Invalid, "%s: a double quote has no other", cluster.Clip(word))
		}
	}
	return words, nil
}

// splitShort splits at a separator outside of double quotes.
func splitShort(text string, separator byte) []string {
	var parts []string
	begin, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch {
		case quoted && text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case text[i] == separator && !quoted:
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:])
}

func unclosed(text string) bool {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch {
		case quoted && text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		}
	}
	return quoted
}

// Short is the parameter in the short form, which ParseShort reads back.
func (q Parameter) Short() string {
	var b strings.Builder
	b.WriteString(q.Name + "=" + q.ShortValues())
	if !q.Default.IsZero() {
		b.WriteString(" default " + shortText(q.Default))
	}
	if q.When != nil {
		b.WriteString(" if " + q.When.Parameter + "=" + shortTexts(q.When.In))
	}
	return b.String()
}

// ShortValues is what the parameter can be, in the short form: "log:1e-4..0.1".
func (q Parameter) ShortValues() string {
	switch q.Type {
	case Constant:
		return shortText(q.Value)
	case Ordered:
		return "ordered:" + shortTexts(q.Choices)
	case Categorical:
		if len(q.Choices) == 1 {
			return "categorical:" + shortTexts(q.Choices)
		}
		return shortTexts(q.Choices)
	}
	text := ""
	if q.Scale != "" {
		text = string(q.Scale) + ":"
	}
	bounds := number(q.Low) + ".." + number(q.High)
	if q.Step != nil {
		bounds += ":" + number(q.Step)
	}
	if whole := strings.Trim(bounds, "+-.:0123456789") == "" && !strings.Contains(strings.Replace(bounds, "..", "", 1), "."); whole != (q.Type == Int) {
		text = string(q.Type) + ":" + text
	}
	return text + bounds
}

func number(v *float64) string {
	if v == nil {
		return ""
	}
	return expr.Num(*v).String()
}

func shortTexts(values []expr.Value) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = shortText(v)
	}
	return strings.Join(texts, ",")
}

// shortText quotes a text that would be read as something else.
func shortText(v expr.Value) string {
	text := v.String()
	if v.Type() != expr.Text {
		return text
	}
	if back, err := shortValue(text); err == nil && back == v && !strings.ContainsAny(text, " ,:\"\\") && !strings.Contains(text, "..") {
		return text
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // a text can always be written
	return strings.TrimSuffix(b.String(), "\n")
}
