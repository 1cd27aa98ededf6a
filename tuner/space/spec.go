package space

import (
	"github.com/clary-ml/clary/tuner/expr"
)

// Type is what kind of values a parameter takes.
type Type string

// The types of parameters.
const (
	Float       Type = "float"
	Int         Type = "int"
	Ordered     Type = "ordered"     // choices in an order: neighbours are alike
	Categorical Type = "categorical" // choices in no order
	Constant    Type = "constant"
)

// Scale is how a numeric range is walked: on which scale equal steps matter equally.
type Scale string

// The scales. An empty Scale is Linear.
const (
	Linear     Scale = "linear"
	Log        Scale = "log"         // above 0: each factor matters as much
	ReverseLog Scale = "reverse_log" // in [0, 1): each factor of 1-x
	Logit      Scale = "logit"       // in (0, 1): each factor of x/(1-x)
)

// Spec is a search space as people write it.
type Spec struct {
	Parameters []Parameter `json:"parameters"`
	// Constraints must all hold, as in "depth * width <= 4096"; package expr has the
	// language. One binds only while all parameters that it names are active.
	Constraints []string `json:"constraints,omitempty"`
}

// Parameter is one thing to choose.
type Parameter struct {
	Name string `json:"name"`
	Type Type   `json:"type"`

	// Low and High bound a float or an int, both included.
	Low  *float64 `json:"low,omitempty"`
	High *float64 `json:"high,omitempty"`
	// Step keeps values to Low, Low+Step, Low+2*Step, ...; an int has 1 if unset.
	Step  *float64 `json:"step,omitempty"`
	Scale Scale    `json:"scale,omitempty"`

	// Choices are what an ordered or categorical parameter can be.
	Choices []expr.Value `json:"choices,omitempty"`

	// Value is that of a constant.
	Value expr.Value `json:"value,omitzero"`

	// Default is where a search may start, and what trials of an earlier sweep that lacked
	// the parameter are taken to have used.
	Default expr.Value `json:"default,omitzero"`

	// When says that the parameter is there only for some values of another.
	When *When `json:"when,omitempty"`
}

// When is the condition under which a parameter is active: its parent is active and has
// one of the values.
type When struct {
	Parameter string       `json:"parameter"`
	In        []expr.Value `json:"in"`
}

// Limits on what Compile accepts.
const (
	MaxParameters  = 1000
	MaxChoices     = 100_000
	MaxConstraints = 1000
	MaxName        = 256 // bytes

	// maxWhole bounds ints and the number of levels: all below are exact in a float64.
	maxWhole = 1 << 53
)
