package stop

import (
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/tuner"
)

// Median is the median rule of D. Golovin, B. Solnik, S. Moitra, G. Kochanski, J. Karro and
// D. Sculley, "Google Vizier", KDD 2017, section 3.2: a trial is stopped if the best that it
// has reported is worse than the median of what complete trials had averaged by that step.
type Median struct {
	// Trials are how many must be complete before any is stopped; 0 means 5.
	Trials int `json:"trials,omitempty"`
	// Warmup is the step before which none is stopped.
	Warmup float64 `json:"warmup,omitempty"`
}

// Validate returns every mistake.
func (c Median) Validate() cluster.Problems {
	var p cluster.Problems
	if c.Trials < 0 {
		p.Add("trials", "%d: give 1 or more, or 0 for 5", c.Trials)
	}
	if !(c.Warmup >= 0) || math.IsInf(c.Warmup, 1) {
		p.Add("warmup", "%v: give a step, or 0", c.Warmup)
	}
	return p
}

// latest is how many complete trials are looked at, the last ones first.
const latest = 1000

// Wants implements Stopper: a mean over a curve needs all of it.
func (c Median) Wants(*tuner.History, int, float64) bool { return true }

// Judge implements Stopper. It looks at the latest 1,000 complete trials.
func (c Median) Judge(h *tuner.History, number int) Verdict {
	curve := h.Curve(number)
	if len(curve) == 0 || curve[len(curve)-1].Step < c.Warmup {
		return Continue
	}
	step := curve[len(curve)-1].Step
	objective := h.Problem().Objectives[0]
	best := math.Inf(1)
	for _, p := range curve {
		best = min(best, objective.Loss(p.Value))
	}
	var averages []float64
	for _, other := range slices.Backward(h.Ended()) {
		if len(averages) == latest {
			break
		}
		if h.State(int(other)) != tuner.Complete {
			continue
		}
		if mean, ok := average(h, int(other), step); ok {
			averages = append(averages, mean)
		}
	}
	least := c.Trials
	if least == 0 {
		least = 5
	}
	if len(averages) < least || best <= median(averages) {
		return Continue
	}
	return Stop
}

// average is the mean loss of a trial up to a step, if it got there.
func average(h *tuner.History, number int, step float64) (mean float64, ok bool) {
	curve := h.Curve(number)
	if len(curve) == 0 || curve[len(curve)-1].Step < step {
		return 0, false
	}
	n := 0
	for _, p := range curve {
		if p.Step > step {
			break
		}
		n++
		mean += (h.Problem().Objectives[0].Loss(p.Value) - mean) / float64(n)
	}
	return mean, n > 0
}

func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return values[(n-1)/2]/2 + values[n/2]/2
}
