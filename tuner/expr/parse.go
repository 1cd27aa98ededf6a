package expr

import (
	"fmt"
	"slices"
	"strings"
)

// Limits on what Parse accepts.
const (
	MaxLength = 4096 // bytes
	MaxDepth  = 64   // parentheses, signs and functions within one another
)

// Expr is a parsed expression that is true or false. It never changes.
type Expr struct {
	text  string
	names []string
	holds func(args []Value) bool
}

// Parse reads a constraint. Types says what each name is; a name that it lacks is a
// mistake. The error says the column and what would be right.
func Parse(text string, types map[string]Type) (*Expr, error) {
	if len(text) > MaxLength {
		return nil, fmt.Errorf("%d bytes: at most %d", len(text), MaxLength)
	}
	tokens, err := lex(text)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens, types: types}
	root, err := p.truth()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != tokenEnd {
		return nil, fmt.Errorf("column %d: %s does not belong here: join conditions with and, or", t.column, t)
	}
	if root.kind != Truth {
		return nil, fmt.Errorf("is %s: a constraint is true or false, as in x < 1", root.kind)
	}
	if len(p.names) == 0 {
		return nil, fmt.Errorf("names no parameter: it is always the same")
	}
	return &Expr{text: text, names: p.names, holds: root.truth}, nil
}

// String is the text that was parsed.
func (e *Expr) String() string { return e.text }

// Names are the parameters that the expression reads, each once, in the order of the
// arguments of Holds. The caller must not change them.
func (e *Expr) Names() []string { return e.names }

// Holds evaluates the expression; args are the values of Names, of the types that were
// given to Parse.
func (e *Expr) Holds(args []Value) bool { return e.holds(args) }

// operand is a part of an expression, compiled: of its functions one is set, that of its
// kind; any is set for Any.
type operand struct {
	kind   Type
	number func([]Value) float64
	truth  func([]Value) bool
	value  func([]Value) Value // of texts and Any
}

type parser struct {
	tokens []token
	at     int
	depth  int
	types  map[string]Type
	names  []string
}

func (p *parser) peek() token { return p.tokens[p.at] }

// accept takes the next token if it is the sign or word.
func (p *parser) accept(sign string) bool {
	if !p.peek().is(sign) {
		return false
	}
	p.at++
	return true
}

func (p *parser) expect(sign string) error {
	if t := p.peek(); !p.accept(sign) {
		return fmt.Errorf("column %d: %s where %q should be", t.column, t, sign)
	}
	return nil
}

// deeper bounds the recursion: the caller defers shallower if there is no error.
func (p *parser) deeper() error {
	if p.depth++; p.depth > MaxDepth {
		return fmt.Errorf("column %d: more than %d parts within one another", p.peek().column, MaxDepth)
	}
	return nil
}

func (p *parser) shallower() { p.depth-- }

func (p *parser) truth() (operand, error) {
	return p.chain("or", p.all, func(a, b func([]Value) bool) func([]Value) bool {
		return func(args []Value) bool { return a(args) || b(args) }
	})
}

func (p *parser) all() (operand, error) {
	return p.chain("and", p.not, func(a, b func([]Value) bool) func([]Value) bool {
		return func(args []Value) bool { return a(args) && b(args) }
	})
}

func (p *parser) chain(word string, part func() (operand, error), join func(a, b func([]Value) bool) func([]Value) bool) (operand, error) {
	left, err := part()
	for err == nil && p.peek().is(word) {
		column := p.peek().column
		p.at++
		var right operand
		if right, err = part(); err != nil {
			break
		}
		for _, side := range []operand{left, right} {
			if side.kind != Truth {
				return operand{}, fmt.Errorf("column %d: %s joins what is true or false, not %s", column, word, side.kind)
			}
		}
		left = operand{kind: Truth, truth: join(left.truth, right.truth)}
	}
	return left, err
}

func (p *parser) not() (operand, error) {
	column := p.peek().column
	if !p.accept("not") {
		return p.relation()
	}
	if err := p.deeper(); err != nil {
		return operand{}, err
	}
	defer p.shallower()
	part, err := p.not()
	if err != nil {
		return operand{}, err
	}
	if part.kind != Truth {
		return operand{}, fmt.Errorf("column %d: not takes what is true or false, not %s", column, part.kind)
	}
	holds := part.truth
	return operand{kind: Truth, truth: func(args []Value) bool { return !holds(args) }}, nil
}

var comparisons = []string{"<=", ">=", "==", "!=", "<", ">"}

func (p *parser) relation() (operand, error) {
	left, err := p.sum()
	if err != nil {
		return operand{}, err
	}
	sign := p.peek()
	switch {
	case sign.kind == tokenSign && slices.Contains(comparisons, sign.text):
		p.at++
		right, err := p.sum()
		if err != nil {
			return operand{}, err
		}
		if after := p.peek(); after.kind == tokenSign && slices.Contains(comparisons, after.text) {
			return operand{}, fmt.Errorf("column %d: comparisons do not chain: write a < b and b < c", after.column)
		}
		return compare(sign, left, right)
	case sign.is("in"), sign.is("not") && p.tokens[p.at+1].is("in"):
		return p.membership(left)
	}
	return left, nil
}

// membership reads ["not"] "in" [a, b]: one of several equalities.
func (p *parser) membership(left operand) (operand, error) {
	negated := p.accept("not")
	in := p.peek()
	p.at++
	if err := p.expect("["); err != nil {
		return operand{}, err
	}
	var equal []func([]Value) bool
	for {
		item, err := p.sum()
		if err != nil {
			return operand{}, err
		}
		one, err := compare(token{text: "==", column: in.column}, left, item)
		if err != nil {
			return operand{}, err
		}
		equal = append(equal, one.truth)
		if !p.accept(",") {
			break
		}
	}
	return operand{kind: Truth, truth: func(args []Value) bool {
		return slices.ContainsFunc(equal, func(e func([]Value) bool) bool { return e(args) }) != negated
	}}, p.expect("]")
}

func (p *parser) atom() (operand, error) {
	if err := p.deeper(); err != nil {
		return operand{}, err
	}
	defer p.shallower()
	t := p.peek()
	p.at++
	switch t.kind {
	case tokenNumber:
		return operand{kind: Number, number: func([]Value) float64 { return t.number }}, nil
	case tokenText:
		text := Str(t.text)
		return operand{kind: Text, value: func([]Value) Value { return text }}, nil
	case tokenQuoted:
		return p.name(t)
	case tokenName:
		return p.word(t)
	case tokenSign:
		if t.text == "(" {
			inner, err := p.truth()
			if err != nil {
				return operand{}, err
			}
			return inner, p.expect(")")
		}
	}
	p.at--
	return operand{}, fmt.Errorf("column %d: %s where a number, a text or a parameter should be", t.column, t)
}

var reserved = []string{"and", "or", "not", "in"}

func (p *parser) word(t token) (operand, error) {
	switch {
	case t.text == "true" || t.text == "false":
		is := t.text == "true"
		return operand{kind: Truth, truth: func([]Value) bool { return is }}, nil
	case slices.Contains(reserved, t.text):
		return operand{}, fmt.Errorf("column %d: %s where a number, a text or a parameter should be", t.column, t)
	case p.peek().is("("):
		return p.call(t)
	}
	return p.name(t)
}

func (p *parser) name(t token) (operand, error) {
	kind, known := p.types[t.text]
	if !known {
		names := make([]string, 0, len(p.types))
		for name := range p.types {
			names = append(names, name)
		}
		slices.Sort(names)
		if len(names) > 12 {
			names = append(names[:12], "...")
		}
		return operand{}, fmt.Errorf("column %d: there is no parameter %s: there are %s", t.column, t, strings.Join(names, ", "))
	}
	slot := slices.Index(p.names, t.text)
	if slot < 0 {
		slot = len(p.names)
		p.names = append(p.names, t.text)
	}
	o := operand{kind: kind}
	switch kind {
	case Number:
		o.number = func(args []Value) float64 { return args[slot].number }
	case Truth:
		o.truth = func(args []Value) bool { return args[slot].number != 0 }
	default:
		o.value = func(args []Value) Value { return args[slot] }
	}
	return o, nil
}
