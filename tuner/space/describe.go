package space

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// describe says what values a parameter has, as in "an int from 1 to 8".
func (q *param) describe() string {
	if q.choices == nil {
		text := fmt.Sprintf("a number from %v to %v", q.axis.low, q.axis.high)
		if q.Type == Int {
			text = fmt.Sprintf("an int from %.0f to %.0f", q.axis.low, q.axis.high)
		}
		if q.Step != nil {
			text += fmt.Sprintf(" in steps of %v", *q.Step)
		}
		return text
	}
	if len(q.choices) == 1 {
		return cluster.Clip(q.choices[0].String()) + " or nothing"
	}
	shown := make([]string, 0, 8)
	for _, choice := range q.choices[:min(len(q.choices), 8)] {
		shown = append(shown, cluster.Clip(choice.String()))
	}
	if len(q.choices) > len(shown) {
		shown = append(shown, fmt.Sprintf("and %d more", len(q.choices)-len(shown)))
	}
	return "one of " + strings.Join(shown, ", ")
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
