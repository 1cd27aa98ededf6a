package space

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/tuner/expr"
)

// Space is a checked Spec. It never changes and may be used from several goroutines.
type Space struct {
	spec        Spec
	params      []param
	index       map[string]int
	dims        []Dim
	constraints []constraint
}

// param is a parameter of a Space.
type param struct {
	Parameter
	axis     axis         // of floats and ints
	choices  []expr.Value // of ordered and categorical ones, and the value of a constant
	fallback float64      // of trials that lacked it: its default; NaN if it has none
	parent   int          // -1: always there
	when     []float64    // raw values of the parent, sorted
	children []int
	dim      int    // -1: it has one value only
	count    uint64 // configurations of it and all below it
}

type constraint struct {
	expr   *expr.Expr
	params []int
}

// Compile checks the spec and makes a Space. The error lists every mistake
// (cluster.Problems), each under its field's path.
func (s Spec) Compile() (*Space, error) {
	compiled, problems := s.compile()
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return compiled, nil
}

func (s Spec) compile() (*Space, cluster.Problems) {
	var p cluster.Problems
	if len(s.Parameters) == 0 || len(s.Parameters) > MaxParameters {
		p.Add("parameters", "%d parameters: give 1 to %d", len(s.Parameters), MaxParameters)
		return nil, p
	}
	if len(s.Constraints) > MaxConstraints {
		p.Add("constraints", "%d constraints: at most %d", len(s.Constraints), MaxConstraints)
		return nil, p
	}
	named := make(map[string]int, len(s.Parameters))
	for i, q := range s.Parameters {
		at := fmt.Sprintf("parameters[%d]", i)
		q.checkAlone(&p, at)
		if first, twice := named[q.Name]; twice && q.Name != "" {
			p.Add(at+".name", "%q is the name of parameters[%d] already: give each its own", cluster.Clip(q.Name), first)
			continue
		}
		named[q.Name] = i
	}
	order := s.order(&p, named)
	if len(p) > 0 {
		return nil, p
	}
	compiled := &Space{spec: s, index: make(map[string]int, len(order))}
	for _, i := range order {
		compiled.add(&p, s.Parameters[i], fmt.Sprintf("parameters[%d]", i))
	}
	compiled.addConstraints(&p)
	if len(p) > 0 {
		return nil, p
	}
	for i := range compiled.params {
		last := len(compiled.params) - 1 - i // children before parents
		compiled.params[last].count = compiled.counted(last)
	}
	return compiled, nil
}

// order puts parents before children and otherwise goes by name. It reports parents that
// are not there, and circles.
func (s Spec) order(p *cluster.Problems, named map[string]int) []int {
	depth := make([]int, len(s.Parameters))
	for i, q := range s.Parameters {
		at, steps := q, 0
		for at.When != nil && steps <= len(s.Parameters) {
			parent, known := named[at.When.Parameter]
			if !known {
				if at.Name == q.Name {
					p.Add(fmt.Sprintf("parameters[%d].when.parameter", i), "there is no parameter %q", cluster.Clip(at.When.Parameter))
				}
				break
			}
			at = s.Parameters[parent]
			steps++
		}
		if steps > len(s.Parameters) {
			p.Add(fmt.Sprintf("parameters[%d].when.parameter", i), "%q waits for itself: conditions must not go in circles", cluster.Clip(q.Name))
		}
		depth[i] = steps
	}
	order := make([]int, len(s.Parameters))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(depth[a], depth[b]), cmp.Compare(s.Parameters[a].Name, s.Parameters[b].Name))
	})
	return order
}

// add appends a parameter whose parent stands in the space already.
func (s *Space) add(p *cluster.Problems, q Parameter, at string) {
	one := param{Parameter: q, parent: -1, dim: -1, fallback: math.NaN()}
	levels := 0
	switch q.Type {
	case Float, Int:
		if step := q.step(); step > 0 {
			levels = int(math.Floor((*q.High-*q.Low)/step+1e-9)) + 1
		} else if *q.Low == *q.High {
			levels = 1
		}
		one.axis = newAxis(*q.Low, *q.High, q.step(), levels, q.Scale)
	case Constant:
		one.choices = []expr.Value{q.Value}
		levels = 1
	default:
		one.choices = slices.Clone(q.Choices)
		levels = len(q.Choices)
	}
	if q.Type == Constant {
		one.fallback = 0
	} else if !q.Default.IsZero() {
		one.fallback, _ = one.raw(q.Default)
	}
	if q.When != nil {
		one.parent = s.index[q.When.Parameter]
		one.when = s.whenValues(p, one, at)
	}
	own := len(s.params)
	if levels != 1 {
		one.dim = len(s.dims)
		s.dims = append(s.dims, s.newDim(own, one, levels))
	}
	if one.parent >= 0 {
		s.params[one.parent].children = append(s.params[one.parent].children, own)
	}
	s.params = append(s.params, one)
	s.index[q.Name] = own
}

// whenValues are the raw values of the parent under which the parameter is active.
func (s *Space) whenValues(p *cluster.Problems, one param, at string) []float64 {
	parent := s.params[one.parent]
	if parent.Type == Float && parent.step() == 0 {
		p.Add(at+".when.parameter", "%q is a float without a step: a condition needs a parent that is an int, ordered, categorical or constant", cluster.Clip(parent.Name))
		return nil
	}
	var values []float64
	for i, v := range one.When.In {
		raw, ok := parent.raw(v)
		if !ok {
			p.Add(fmt.Sprintf("%s.when.in[%d]", at, i), "%q is no value of %q", cluster.Clip(v.String()), cluster.Clip(parent.Name))
			continue
		}
		values = append(values, raw)
	}
	slices.Sort(values)
	return slices.Compact(values)
}

func (s *Space) addConstraints(p *cluster.Problems) {
	types := make(map[string]expr.Type, len(s.params))
	for _, q := range s.params {
		types[q.Name] = q.exprType()
	}
	for i, text := range s.spec.Constraints {
		e, err := expr.Parse(text, types)
		if err != nil {
			p.Add(fmt.Sprintf("constraints[%d]", i), "%s: %s", cluster.Clip(text), err)
			continue
		}
		c := constraint{expr: e}
		for _, name := range e.Names() {
			c.params = append(c.params, s.index[name])
		}
		s.constraints = append(s.constraints, c)
	}
	// The order of evaluation must not depend on the order of writing.
	slices.SortStableFunc(s.constraints, func(a, b constraint) int { return cmp.Compare(a.expr.String(), b.expr.String()) })
}

func (q *param) exprType() expr.Type {
	if q.choices == nil {
		return expr.Number
	}
	kind := q.choices[0].Type()
	for _, choice := range q.choices {
		if choice.Type() != kind {
			return expr.Any
		}
	}
	return kind
}

// raw is the number that stands for a value in a Config; ok is false if the parameter
// cannot have that value.
func (q *param) raw(v expr.Value) (raw float64, ok bool) {
	if q.choices != nil {
		i := slices.Index(q.choices, v)
		return float64(i), i >= 0
	}
	n := v.Number()
	if v.Type() != expr.Number || !(n >= q.axis.low && n <= q.axis.high) {
		return 0, false
	}
	if q.axis.levels == 0 {
		return n, true
	}
	if q.axis.step == 0 {
		return q.axis.low, true
	}
	if !onGrid(n, q.axis.low, q.axis.step) {
		return 0, false
	}
	return q.axis.level(q.axis.levelOf(n)), true
}

// value is what a raw number stands for.
func (q *param) value(raw float64) expr.Value {
	if q.choices != nil {
		return q.choices[int(raw)]
	}
	return expr.Num(raw)
}

// has reports whether a raw number is one that the parameter can have.
func (q *param) has(raw float64) bool {
	if q.choices != nil {
		return raw >= 0 && raw < float64(len(q.choices)) && raw == math.Trunc(raw)
	}
	if !(raw >= q.axis.low && raw <= q.axis.high) {
		return false
	}
	return q.axis.step == 0 || q.axis.level(q.axis.levelOf(raw)) == raw
}
