// Package stop says which trials are not worth going on with, and when a search is over:
// pure functions of the history.
//
// A Stopper judges a trial when it has reported. One that promotes lets trials pause at
// rungs and says which goes on; the others only continue or stop. An Ender ends a search.
package stop

import (
	"math"

	"github.com/clary-ml/clary/tuner"
)

// Verdict is what becomes of a trial.
type Verdict uint8

// The verdicts.
const (
	Continue Verdict = iota
	// Stop ends the trial for good.
	Stop
	// Pause frees its worker; Promote may let it go on from there.
	Pause
)

// String is the verdict in lower case.
func (v Verdict) String() string {
	return [...]string{"continue", "stop", "pause"}[min(v, Pause)]
}

// Stopper judges trials by their learning curves. What it keeps is worked out from the
// history that it was asked about last, so that a new one answers the same.
type Stopper interface {
	// Wants reports whether it learns from what a pending trial reports at a step. What it
	// does not want need not go to the history, which then stays small.
	Wants(h *tuner.History, number int, step float64) bool
	// Judge is asked about a pending trial each time its curve has got a point; a value that
	// is not finite makes none.
	Judge(h *tuner.History, number int) Verdict
}

// Promoter is a Stopper that pauses trials.
type Promoter interface {
	Stopper
	// Promote is asked whenever a worker is free: the paused trial that should go on, or
	// ok = false if a new trial should begin.
	Promote(h *tuner.History) (number int, ok bool)
}

// Ender says when a search is over.
type Ender interface {
	// Over is the reason why, or "" to go on.
	Over(h *tuner.History) string
}

// lossAt is the loss at the first point of a trial's curve at or after a step.
func lossAt(h *tuner.History, number int, step float64) (loss float64, ok bool) {
	for _, p := range h.Curve(number) {
		if p.Step >= step {
			return h.Problem().Objectives[0].Loss(p.Value), true
		}
	}
	return math.NaN(), false
}
