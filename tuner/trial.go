package tuner

import (
	"fmt"

	"github.com/clary-ml/clary/tuner/space"
)

// State is where a trial stands.
//
//	Pending ──► Complete    its values are known
//	│   ▲   ├─► Stopped     a stopper ended it; its curve is what is known
//	▼   │   ├─► Failed      it has no values, and probably never would
//	Paused ─┼─► Infeasible  its configuration cannot be run
//	        └─► Cancelled   ended for reasons that say nothing about it
type State uint8

// The states. Pending and Paused are not final.
const (
	Pending State = iota
	Complete
	Stopped
	Failed
	Infeasible
	Cancelled
	Paused // holds no worker, and waits for whether it goes on
)

var stateNames = [...]string{"pending", "complete", "stopped", "failed", "infeasible", "cancelled", "paused"}

// Ended reports that the state is final.
func (s State) Ended() bool { return s != Pending && s != Paused }

// String is the state's name in lower case.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Point is a value of the first objective on the way, after Step of the fidelity.
type Point struct {
	Step  float64
	Value float64
	Order uint64 // among all results of the search, from 1
}

// Trial is one configuration and what is known of it.
type Trial struct {
	Number int
	Config space.Config
	State  State
	// Values are those of the objectives, as measured; only of complete trials.
	Values []float64
	// Limits are the metrics of the problem's limits, as measured; only of complete trials.
	Limits []float64
	// Curve is in ascending steps.
	Curve []Point
	// Order is the trial's end among all results of the search, from 1; 0 while pending.
	Order uint64
}

// Result is how a trial ends.
type Result struct {
	State  State
	Values []float64 // of the objectives; only if Complete
	Limits []float64 // of the limits; only if Complete
}
