// Package steps is what the steward does about endpoints by itself: fleets follow their load, an update
// whose alarm goes off is rolled back, and an A/B experiment ends with its answer.
//
// Each step is a function of the endpoint and of what routers told; deciding is left to the pure
// packages serving/autoscale and serving/experiment.
package steps

import (
	"log/slog"

	"github.com/clary-ml/clary/coordinator/steward"
)

// All are the steps, in the order in which they look.
func All(log *slog.Logger) []steward.Step {
	return []steward.Step{Scaling(log), Alarms, Experiments(log)}
}
