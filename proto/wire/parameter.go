package wire

import (
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// ParameterToProto converts a parameter's value: a number, a text or a truth.
func ParameterToProto(value any) (*claryv1.ParameterValue, error) {
	switch value := value.(type) {
	case float64:
		return &claryv1.ParameterValue{Value: &claryv1.ParameterValue_Number{Number: value}}, nil
	case int:
		return &claryv1.ParameterValue{Value: &claryv1.ParameterValue_Number{Number: float64(value)}}, nil
	case string:
		return &claryv1.ParameterValue{Value: &claryv1.ParameterValue_Text{Text: value}}, nil
	case bool:
		return &claryv1.ParameterValue{Value: &claryv1.ParameterValue_Truth{Truth: value}}, nil
	}
	return nil, fault.New(fault.Invalid, "a %T is no parameter's value: give a number, a text, or true or false", value)
}

// ParameterFromProto converts a parameter's value to a float64, string or bool; nil if there
// is none.
func ParameterFromProto(value *claryv1.ParameterValue) any {
	switch value := value.GetValue().(type) {
	case *claryv1.ParameterValue_Number:
		return value.Number
	case *claryv1.ParameterValue_Text:
		return value.Text
	case *claryv1.ParameterValue_Truth:
		return value.Truth
	}
	return nil
}
