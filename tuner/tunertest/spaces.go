// Package tunertest holds the laws that every sampler keeps, and generators of spaces and
// histories to try them on.
package tunertest

import (
	"fmt"
	"math"
	"slices"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
)

// Specs draws valid search spaces: all types and scales, conditions over several levels,
// constraints. Those that are finite have at most a few hundred configurations.
func Specs() *rapid.Generator[space.Spec] {
	return rapid.Custom(func(t *rapid.T) space.Spec { return drawSpec(t, true) })
}

// FiniteSpecs draws valid spaces of at most a few hundred configurations.
func FiniteSpecs() *rapid.Generator[space.Spec] {
	return rapid.Custom(func(t *rapid.T) space.Spec { return drawSpec(t, false) })
}

func drawSpec(t *rapid.T, continuous bool) space.Spec {
	var s space.Spec
	count := rapid.IntRange(1, 4).Draw(t, "parameters")
	for i := range count {
		q := drawParameter(t, continuous && rapid.Bool().Draw(t, "continuous"))
		q.Name = fmt.Sprintf("%c%d", rapid.RuneFrom([]rune("abxyz")).Draw(t, "letter"), i)
		var parents []space.Parameter
		for _, other := range s.Parameters {
			if other.Type != space.Float || other.Step != nil {
				parents = append(parents, other)
			}
		}
		if len(parents) > 0 && rapid.Bool().Draw(t, "conditional") {
			parent := rapid.SampledFrom(parents).Draw(t, "parent")
			q.When = &space.When{Parameter: parent.Name, In: rapid.SliceOfN(rapid.SampledFrom(valuesOf(parent)), 1, 2).Draw(t, "in")}
		}
		s.Parameters = append(s.Parameters, q)
	}
	if rapid.IntRange(0, 3).Draw(t, "constrained") == 0 {
		s.Constraints = drawConstraints(t, s.Parameters)
	}
	return s
}

// drawConstraints makes only such constraints as the greatest values satisfy, on parameters
// that no condition hangs on: what has no end of configurations keeps it.
func drawConstraints(t *rapid.T, parameters []space.Parameter) []string {
	var constraints []string
	for _, q := range parameters {
		parent := slices.ContainsFunc(parameters, func(child space.Parameter) bool { return child.When != nil && child.When.Parameter == q.Name })
		if !parent && q.Low != nil && *q.High > *q.Low && q.Step == nil {
			threshold := *q.Low + (*q.High-*q.Low)*rapid.Float64Range(0, 0.4).Draw(t, "threshold")
			constraints = append(constraints, fmt.Sprintf("%s >= %v", q.Name, threshold))
		}
	}
	return constraints
}

func drawParameter(t *rapid.T, continuous bool) space.Parameter {
	number := func(v float64) *float64 { return &v }
	if continuous {
		ranges := []space.Parameter{
			{Low: number(-5), High: number(10)},
			{Low: number(1e-5), High: number(1), Scale: space.Log},
			{Low: number(0), High: number(0.9999), Scale: space.ReverseLog},
			{Low: number(0.001), High: number(0.999), Scale: space.Logit},
			{Low: number(-1e300), High: number(1e300), Scale: space.Linear},
		}
		q := rapid.SampledFrom(ranges).Draw(t, "float")
		q.Type = space.Float
		return q
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		low := float64(rapid.IntRange(-5, 5).Draw(t, "low"))
		return space.Parameter{Type: space.Int, Low: &low, High: number(low + float64(rapid.IntRange(0, 4).Draw(t, "span")))}
	case 1:
		return space.Parameter{Type: space.Int, Low: number(1), High: number(float64(rapid.IntRange(1, 6).Draw(t, "high"))), Scale: space.Log}
	case 2:
		return space.Parameter{Type: space.Float, Low: number(0.1), High: number(0.7), Step: number(rapid.SampledFrom([]float64{0.1, 0.25}).Draw(t, "step")), Scale: rapid.SampledFrom([]space.Scale{"", space.Log, space.Logit, space.ReverseLog}).Draw(t, "scale")}
	case 3:
		return space.Parameter{Type: space.Constant, Value: expr.Str("fixed")}
	case 4:
		return space.Parameter{Type: space.Ordered, Choices: choices(rapid.IntRange(1, 4).Draw(t, "choices"))}
	}
	return space.Parameter{Type: space.Categorical, Choices: choices(rapid.IntRange(1, 4).Draw(t, "choices"))}
}

func choices(n int) []expr.Value {
	all := []expr.Value{expr.Str("relu"), expr.Num(3), expr.Bool(true), expr.Str("3")}
	return all[:n]
}

// valuesOf are some values of a parameter that has levels.
func valuesOf(q space.Parameter) []expr.Value {
	switch {
	case q.Type == space.Constant:
		return []expr.Value{q.Value}
	case q.Choices != nil:
		return q.Choices
	case *q.Low == *q.High:
		return []expr.Value{expr.Num(*q.Low)}
	case q.Type == space.Float:
		return []expr.Value{expr.Num(*q.Low), expr.Num(*q.Low + *q.Step)}
	}
	return []expr.Value{expr.Num(*q.Low), expr.Num(*q.High)}
}

// Values draws what a metric may be: mostly ordinary, also huge, tiny, infinite and NaN.
func Values() *rapid.Generator[float64] {
	ordinary := rapid.Float64Range(-10, 10)
	return rapid.OneOf(ordinary, ordinary, ordinary, rapid.SampledFrom([]float64{0, 1e300, -1e300, 1e-300, math.Inf(1), math.Inf(-1), math.NaN()}))
}
