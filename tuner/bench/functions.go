package bench

import (
	"fmt"
	"math"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bench/bbob"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// floor of the distance to a function's optimum, before the logarithm.
const floor = 1e-8

// Function is a BBOB function as a Task.
type Function struct {
	space     *space.Space
	instances [5]*bbob.Function
}

// NewFunction makes the task of BBOB function 1 to 24, with instances 1 to 5.
func NewFunction(number, dims int) (*Function, error) {
	f := &Function{}
	var err error
	for i := range f.instances {
		if f.instances[i], err = bbob.New(number, i+1, dims); err != nil {
			return nil, err
		}
	}
	var spec space.Spec
	for i := range dims {
		low, high := -5.0, 5.0
		// Names in the order of coordinates, as a Space sorts them.
		spec.Parameters = append(spec.Parameters, space.Parameter{Name: fmt.Sprintf("x%03d", i), Type: space.Float, Low: &low, High: &high})
	}
	f.space, err = spec.Compile()
	return f, err
}

// Name is the function's, as in "bbob_f08".
func (f *Function) Name() string { return "bbob_" + f.instances[0].String() }

// Instance is instance 1 + seed mod 5.
func (f *Function) Instance(seed uint64) Instance {
	return instance{space: f.space, function: f.instances[seed%5]}
}

type instance struct {
	space    *space.Space
	function *bbob.Function
}

func (i instance) Problem() tuner.Problem {
	return tuner.Problem{Space: i.space, Objectives: []tuner.Objective{{Name: "value"}}}
}

func (i instance) Observe(c space.Config, _ *chance.Rand) float64 { return i.function.Value(c) }

// Regret is the decimal logarithm of the distance to the optimum's value.
func (i instance) Regret(c space.Config) float64 {
	return math.Log10(max(i.function.Value(c)-i.function.Optimum(), floor))
}
