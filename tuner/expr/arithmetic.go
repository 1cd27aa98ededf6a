package expr

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

func (p *parser) sum() (operand, error)     { return p.binary([]string{"+", "-"}, p.product) }
func (p *parser) product() (operand, error) { return p.binary([]string{"*", "/", "%"}, p.sign) }

var arithmetic = map[string]func(a, b float64) float64{
	"+": func(a, b float64) float64 { return a + b },
	"-": func(a, b float64) float64 { return a - b },
	"*": func(a, b float64) float64 { return a * b },
	"/": func(a, b float64) float64 { return a / b },
	"%": math.Mod,
	"^": math.Pow,
}

func (p *parser) binary(signs []string, part func() (operand, error)) (operand, error) {
	left, err := part()
	for err == nil {
		t := p.peek()
		if t.kind != tokenSign || !slices.Contains(signs, t.text) {
			break
		}
		p.at++
		var right operand
		if right, err = part(); err == nil {
			left, err = combine(t, left, right)
		}
	}
	return left, err
}

func combine(sign token, left, right operand) (operand, error) {
	for _, side := range []operand{left, right} {
		if side.kind != Number {
			return operand{}, fmt.Errorf("column %d: %s takes numbers, not %s", sign.column, sign.text, side.kind)
		}
	}
	a, b, f := left.number, right.number, arithmetic[sign.text]
	return operand{kind: Number, number: func(args []Value) float64 { return f(a(args), b(args)) }}, nil
}

func (p *parser) sign() (operand, error) {
	t := p.peek()
	if !p.accept("-") {
		return p.power()
	}
	if err := p.deeper(); err != nil {
		return operand{}, err
	}
	defer p.shallower()
	part, err := p.sign()
	if err != nil {
		return operand{}, err
	}
	if part.kind != Number {
		return operand{}, fmt.Errorf("column %d: - takes a number, not %s", t.column, part.kind)
	}
	f := part.number
	return operand{kind: Number, number: func(args []Value) float64 { return -f(args) }}, nil
}

func (p *parser) power() (operand, error) {
	base, err := p.atom()
	if err != nil {
		return operand{}, err
	}
	t := p.peek()
	if !p.accept("^") {
		return base, nil
	}
	if err := p.deeper(); err != nil {
		return operand{}, err
	}
	defer p.shallower()
	exponent, err := p.sign()
	if err != nil {
		return operand{}, err
	}
	return combine(t, base, exponent)
}

// function is one that expressions may call: of one argument, or folded over two and more.
type function struct {
	one  func(float64) float64
	fold func(a, b float64) float64
}

var functions = map[string]function{
	"abs": {one: math.Abs}, "ceil": {one: math.Ceil}, "exp": {one: math.Exp}, "floor": {one: math.Floor},
	"log": {one: math.Log}, "log10": {one: math.Log10}, "log2": {one: math.Log2}, "round": {one: math.Round}, "sqrt": {one: math.Sqrt},
	"max": {fold: math.Max}, "min": {fold: math.Min},
}

func (p *parser) call(t token) (operand, error) {
	f, known := functions[t.text]
	if !known {
		names := make([]string, 0, len(functions))
		for name := range functions {
			names = append(names, name)
		}
		slices.Sort(names)
		return operand{}, fmt.Errorf("column %d: there is no function %s: there are %s", t.column, t, strings.Join(names, ", "))
	}
	p.at++ // the parenthesis
	var arguments []func([]Value) float64
	for {
		a, err := p.sum()
		if err != nil {
			return operand{}, err
		}
		if a.kind != Number {
			return operand{}, fmt.Errorf("column %d: %s takes numbers, not %s", t.column, t.text, a.kind)
		}
		arguments = append(arguments, a.number)
		if !p.accept(",") {
			break
		}
	}
	if err := p.expect(")"); err != nil {
		return operand{}, err
	}
	if f.one != nil {
		if len(arguments) != 1 {
			return operand{}, fmt.Errorf("column %d: %s takes 1 argument, not %d", t.column, t.text, len(arguments))
		}
		a := arguments[0]
		return operand{kind: Number, number: func(args []Value) float64 { return f.one(a(args)) }}, nil
	}
	if len(arguments) < 2 {
		return operand{}, fmt.Errorf("column %d: %s takes 2 or more arguments, not %d", t.column, t.text, len(arguments))
	}
	return operand{kind: Number, number: func(args []Value) float64 {
		result := arguments[0](args)
		for _, a := range arguments[1:] {
			result = f.fold(result, a(args))
		}
		return result
	}}, nil
}

var orders = map[string]func(a, b float64) bool{
	"<": func(a, b float64) bool { return a < b }, "<=": func(a, b float64) bool { return a <= b },
	">": func(a, b float64) bool { return a > b }, ">=": func(a, b float64) bool { return a >= b },
	"==": func(a, b float64) bool { return a == b }, "!=": func(a, b float64) bool { return a < b || a > b },
}

func compare(sign token, left, right operand) (operand, error) {
	if left.kind == Number && right.kind == Number {
		a, b, holds := left.number, right.number, orders[sign.text]
		return operand{kind: Truth, truth: func(args []Value) bool { return holds(a(args), b(args)) }}, nil
	}
	if sign.text != "==" && sign.text != "!=" {
		side := left
		if left.kind == Number {
			side = right
		}
		return operand{}, fmt.Errorf("column %d: %s compares numbers, not %s", sign.column, sign.text, side.kind)
	}
	if left.kind != right.kind && left.kind != Any && right.kind != Any {
		return operand{}, fmt.Errorf("column %d: %s compares %s with %s: they are never equal", sign.column, sign.text, left.kind, right.kind)
	}
	a, b, wanted := left.boxed(), right.boxed(), sign.text == "=="
	return operand{kind: Truth, truth: func(args []Value) bool {
		x, y := a(args), b(args)
		if x.number != x.number || y.number != y.number {
			return false
		}
		return (x == y) == wanted
	}}, nil
}

// boxed evaluates the operand to a Value, whatever its kind.
func (o operand) boxed() func([]Value) Value {
	switch o.kind {
	case Number:
		return func(args []Value) Value { return Num(o.number(args)) }
	case Truth:
		return func(args []Value) Value { return Bool(o.truth(args)) }
	}
	return o.value
}
