package stop

import (
	"fmt"
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/tuner"
)

// Target ends a search when the first objective has reached a value within all limits.
type Target struct {
	Value float64 `json:"value"`
}

// Over implements Ender.
func (c Target) Over(h *tuner.History) string {
	best, ok := h.Best()
	if !ok {
		return ""
	}
	candidates := []int{best}
	if len(h.Problem().Objectives) > 1 {
		candidates = h.Front()
	}
	objective := h.Problem().Objectives[0]
	for _, number := range candidates {
		if h.Excess(number) == 0 && h.Loss(number, 0) <= objective.Loss(c.Value) {
			return fmt.Sprintf("trial %d reached %s %v, the target is %v", number, objective.Name, h.Values(number)[0], c.Value)
		}
	}
	return ""
}

// Patience ends a search in which so many trials in a row have ended without a new best
// one. Those that were cancelled do not count.
type Patience struct {
	Trials int `json:"trials"`
}

// Validate returns every mistake.
func (c Patience) Validate() cluster.Problems {
	var p cluster.Problems
	if c.Trials < 1 {
		p.Add("trials", "%d: give 1 or more", c.Trials)
	}
	return p
}

// Over implements Ender. Until a trial is complete it has patience.
func (c Patience) Over(h *tuner.History) string {
	best, ok := h.Best()
	if !ok {
		return ""
	}
	since := 0
	for _, number := range slices.Backward(h.Ended()) {
		if int(number) == best {
			break
		}
		if h.State(int(number)) != tuner.Cancelled {
			since++
		}
		if since >= c.Trials {
			return fmt.Sprintf("no trial was better than trial %d in the last %d", best, since)
		}
	}
	return ""
}

// Convergence ends a search that promises too little: if the next Horizon trials were like
// the latest quarter, they would be expected to improve the best by no more than Share of
// what the best is ahead of the median of the first 20; and the latest 20 have gained no
// more either. The expectation is that of a generalised Pareto tail, fitted by
// probability-weighted moments: J. Hosking and J. Wallis, "Parameter and Quantile
// Estimation for the Generalized Pareto Distribution", Technometrics 29 (1987). It knows
// nothing of a model, so it works with every sampler. It is for one objective.
type Convergence struct {
	Horizon int     `json:"horizon,omitempty"` // 0 means 25
	Share   float64 `json:"share,omitempty"`   // 0 means 0.01
	Trials  int     `json:"trials,omitempty"`  // that must be complete and feasible; 0 means 40
}

// Validate returns every mistake.
func (c Convergence) Validate() cluster.Problems {
	var p cluster.Problems
	if c.Horizon < 0 {
		p.Add("horizon", "%d: give 1 or more trials, or 0 for 25", c.Horizon)
	}
	if !(c.Share >= 0 && c.Share < 1) {
		p.Add("share", "%v: give a number from 0 to below 1; 0 means 0.01", c.Share)
	}
	if c.Trials < 0 || c.Trials > 0 && c.Trials <= recent {
		p.Add("trials", "%d: give %d or more, or 0 for 40", c.Trials, recent+1)
	}
	return p
}

func (c Convergence) normal() Convergence {
	if c.Horizon == 0 {
		c.Horizon = 25
	}
	if c.Share == 0 {
		c.Share = 0.01
	}
	if c.Trials == 0 {
		c.Trials = 40
	}
	return c
}

// recent is how many of the first and of the latest trials are compared.
const recent = 20

// Over implements Ender.
func (c Convergence) Over(h *tuner.History) string {
	c = c.normal()
	best, ok := h.Best()
	if !ok || h.Excess(best) > 0 || len(h.Problem().Objectives) > 1 {
		return ""
	}
	var first []float64
	for _, number := range h.Ended() {
		if len(first) == recent {
			break
		}
		if good(h, int(number)) {
			first = append(first, h.Loss(int(number), 0))
		}
	}
	var losses []float64 // the latest first, at most latest of them
	for _, number := range slices.Backward(h.Ended()) {
		if len(losses) == latest {
			break
		}
		if good(h, int(number)) {
			losses = append(losses, h.Loss(int(number), 0))
		}
	}
	if len(losses) < c.Trials {
		return ""
	}
	reached := h.Loss(best, 0)
	gained := slices.Min(losses[recent:]) - reached
	expected := float64(c.Horizon) * gain(slices.Clone(losses[:max(len(losses)/4, recent)]), reached)
	ahead := median(slices.Clone(first)) - reached
	if !(max(expected, gained) <= c.Share*ahead) {
		return ""
	}
	return fmt.Sprintf("the next %d trials are expected to gain %.3g: no more than %v of the %.3g that trial %d is ahead of the first", c.Horizon, expected, c.Share, ahead, best)
}

// good trials are complete and within all limits.
func good(h *tuner.History, number int) bool {
	return h.State(number) == tuner.Complete && h.Excess(number) == 0
}

// gain is by how much one more value like these is expected to lie below the best.
func gain(values []float64, best float64) float64 {
	slices.Sort(values)
	tail := values[:max(len(values)/2, 2)]
	edge := values[len(tail)]
	n := float64(len(tail))
	var a0, a1 float64 // moments of the excesses, ascending
	for i, v := range slices.Backward(tail) {
		excess := edge - v
		rank := n - float64(i) // 1 for the smallest
		a0 += excess / n
		a1 += (1 - (rank-0.35)/n) * excess / n
	}
	share, beyond := n/float64(len(values)), edge-best
	if a0 <= 0 {
		return 0 // all are the same
	}
	// A tail with an end, which few values seem to have by chance, is not believed.
	shape := 0.0
	if spread := a0 - 2*a1; spread > 0 {
		shape = min(max(2-a0/spread, 0), 0.9)
	}
	scale := a0 * (1 - shape)      // so that the mean agrees
	scale *= 1 + 1.64/math.Sqrt(n) // with one chance in twenty, it is as wide as this
	if shape < 1e-6 {
		return share * scale * math.Exp(-beyond/scale)
	}
	return share * scale / (1 - shape) * math.Pow(1+shape*beyond/scale, 1-1/shape)
}
