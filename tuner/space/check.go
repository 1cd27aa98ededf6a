package space

import (
	"fmt"
	"math"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/tuner/expr"
)

// Validate returns every mistake in the spec.
func (s Spec) Validate() cluster.Problems {
	_, problems := s.compile()
	return problems
}

// checkAlone finds the mistakes of one parameter that show without the others.
func (q Parameter) checkAlone(p *cluster.Problems, at string) {
	if q.Name == "" || len(q.Name) > MaxName || strings.ContainsAny(q.Name, "`\n\r\x00") {
		p.Add(at+".name", "%q: give 1 to %d bytes, without backquotes and line ends", cluster.Clip(q.Name), MaxName)
	}
	switch q.Type {
	case Float, Int:
		q.checkNumeric(p, at)
		q.refuse(p, at, "choices", "value")
	case Ordered, Categorical:
		q.checkChoices(p, at)
		q.refuse(p, at, "low", "high", "step", "scale", "value")
	case Constant:
		if q.Value.IsZero() {
			p.Add(at+".value", "is missing: a constant needs its value")
		} else {
			checkValue(p, at+".value", q.Value)
		}
		q.refuse(p, at, "low", "high", "step", "scale", "choices", "default")
	default:
		p.Add(at+".type", "%q: give one of float, int, ordered, categorical, constant", cluster.Clip(string(q.Type)))
	}
	if q.When != nil && len(q.When.In) == 0 {
		p.Add(at+".when.in", "is empty: give the values of %q for which %q is there", cluster.Clip(q.When.Parameter), cluster.Clip(q.Name))
	}
}

// refuse reports the fields that a parameter of this type does not have.
func (q Parameter) refuse(p *cluster.Problems, at string, names ...string) {
	set := map[string]bool{
		"low": q.Low != nil, "high": q.High != nil, "step": q.Step != nil, "scale": q.Scale != "",
		"choices": len(q.Choices) > 0, "value": !q.Value.IsZero(), "default": !q.Default.IsZero(),
	}
	for _, name := range names {
		if set[name] {
			p.Add(at+"."+name, "a parameter of type %s has none: leave it out", q.Type)
		}
	}
}

func (q Parameter) checkNumeric(p *cluster.Problems, at string) {
	before := len(*p)
	bound := func(field string, v *float64) {
		switch {
		case v == nil:
			p.Add(at+"."+field, "is missing: a parameter of type %s needs low and high", q.Type)
		case math.IsNaN(*v) || math.IsInf(*v, 0):
			p.Add(at+"."+field, "%v: give a finite number", *v)
		case q.Type == Int && (*v != math.Trunc(*v) || math.Abs(*v) > maxWhole):
			p.Add(at+"."+field, "%v: an int needs a whole number of at most 2^53 in size", *v)
		}
	}
	bound("low", q.Low)
	bound("high", q.High)
	if q.Step != nil {
		switch step := *q.Step; {
		case math.IsNaN(step) || math.IsInf(step, 0) || step <= 0:
			p.Add(at+".step", "%v: give a number above 0", step)
		case q.Type == Int && step != math.Trunc(step):
			p.Add(at+".step", "%v: an int needs a whole step", step)
		}
	}
	w, known := warps[q.Scale]
	if q.Scale == "" {
		w, known = warps[Linear], true
	}
	if !known {
		p.Add(at+".scale", "%q: give one of linear, log, reverse_log, logit", cluster.Clip(string(q.Scale)))
	}
	if len(*p) == before {
		q.checkRange(p, at, w)
	}
}

// checkRange expects bounds, step and scale that are right each on its own.
func (q Parameter) checkRange(p *cluster.Problems, at string, w warp) {
	low, high := *q.Low, *q.High
	if low > high {
		p.Add(at+".high", "%v is below low %v: exchange them", high, low)
		return
	}
	for _, b := range []struct {
		field string
		v     float64
	}{{"low", low}, {"high", high}} {
		if !w.within(b.v) {
			p.Add(at+"."+b.field, "%v: on the scale %s values lie %s", b.v, q.Scale, w.domain)
		}
	}
	if math.IsInf(high-low, 0) {
		p.Add(at+".high", "the range from %v to %v is wider than a number can say: narrow it, or use the log scale", low, high)
	}
	if step := q.step(); step > 0 && (high-low)/step >= maxWhole {
		p.Add(at+".step", "%v makes more than 2^53 levels: leave it out, or make it larger", step)
	}
	if !q.Default.IsZero() {
		v := q.Default.Number()
		switch {
		case q.Default.Type() != expr.Number || math.IsNaN(v):
			p.Add(at+".default", "%q: give a number", cluster.Clip(q.Default.String()))
		case v < low || v > high:
			p.Add(at+".default", "%v is outside low %v and high %v", v, low, high)
		case q.step() > 0 && !onGrid(v, low, q.step()):
			p.Add(at+".default", "%v is not on the grid of low %v and step %v", v, low, q.step())
		}
	}
}

// step is the distance of levels, 0 for a continuous parameter.
func (q Parameter) step() float64 {
	switch {
	case q.Step != nil:
		return *q.Step
	case q.Type == Int:
		return 1
	}
	return 0
}

func onGrid(v, low, step float64) bool {
	k := (v - low) / step
	return math.Abs(k-math.Round(k)) <= 1e-9*max(1, math.Abs(k))
}

func (q Parameter) checkChoices(p *cluster.Problems, at string) {
	if len(q.Choices) == 0 || len(q.Choices) > MaxChoices {
		p.Add(at+".choices", "%d choices: give 1 to %d", len(q.Choices), MaxChoices)
		return
	}
	first := make(map[expr.Value]int, len(q.Choices))
	for i, choice := range q.Choices {
		field := fmt.Sprintf("%s.choices[%d]", at, i)
		if !checkValue(p, field, choice) {
			continue
		}
		if other, twice := first[choice]; twice {
			p.Add(field, "%q is choice %d already: leave it out", cluster.Clip(choice.String()), other)
			continue
		}
		first[choice] = i
	}
	if _, known := first[q.Default]; !known && !q.Default.IsZero() {
		p.Add(at+".default", "%q is none of the choices", cluster.Clip(q.Default.String()))
	}
}

func checkValue(p *cluster.Problems, field string, v expr.Value) bool {
	switch {
	case v.IsZero():
		p.Add(field, "is null: give a number, a text, or true or false")
	case v.Type() == expr.Number && (math.IsNaN(v.Number()) || math.IsInf(v.Number(), 0)):
		p.Add(field, "%v: give a finite number", v.Number())
	case v.Type() == expr.Text && len(v.String()) > 4096:
		p.Add(field, "%d bytes: at most 4096", len(v.String()))
	default:
		return true
	}
	return false
}
