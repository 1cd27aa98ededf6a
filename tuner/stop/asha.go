package stop

import (
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
)

// Halving is asynchronous successive halving: L. Li, K. Jamieson, A. Rostamizadeh, E.
// Gonina, M. Hardt, B. Recht and A. Talwalkar, "A System for Massively Parallel
// Hyperparameter Tuning", MLSys 2020. Trials are compared at rungs Min, Min*Eta,
// Min*Eta^2, ... below Max, and one of Eta goes on from each.
type Halving struct {
	Min float64 `json:"min,omitempty"` // step of the first rung; 0 means 1
	Max float64 `json:"max,omitempty"` // at which a trial is complete; 0 means the fidelity's
	Eta float64 `json:"eta,omitempty"` // 0 means 3
	// Brackets of Hyperband begin at the first rung, the second, and so on: L. Li, K.
	// Jamieson, G. DeSalvo, A. Rostamizadeh and A. Talwalkar, "Hyperband", JMLR 18 (2018).
	// Trials are compared within their bracket. 0 means 1.
	Brackets int `json:"brackets,omitempty"`
}

// maxRungs bounds how many rungs there are.
const maxRungs = 64

// normal fills in what is not said.
func (c Halving) normal(f tuner.Fidelity) Halving {
	if c.Min == 0 {
		c.Min = 1
	}
	if c.Max == 0 {
		c.Max = f.Max
	}
	if c.Eta == 0 {
		c.Eta = 3
	}
	if c.Brackets == 0 {
		c.Brackets = 1
	}
	return c
}

// Validate returns every mistake, for a search with this fidelity.
func (c Halving) Validate(f tuner.Fidelity) cluster.Problems {
	var p cluster.Problems
	c = c.normal(f)
	positive := func(v float64) bool { return v > 0 && !math.IsInf(v, 1) }
	if !positive(c.Min) {
		p.Add("min", "%v: give a step above 0", c.Min)
	}
	if !positive(c.Max) {
		p.Add("max", "%v: give the step at which a trial is complete", c.Max)
	} else if c.Min >= c.Max {
		p.Add("min", "%v: the first rung must lie below max %v", c.Min, c.Max)
	}
	if !(c.Eta > 1) || math.IsInf(c.Eta, 1) {
		p.Add("eta", "%v: give a number above 1, such as 3", c.Eta)
	}
	if len(p) > 0 {
		return p
	}
	if n := len(c.steps()); n > maxRungs {
		p.Add("eta", "%v makes more than %d rungs from %v to %v: make it larger", c.Eta, maxRungs, c.Min, c.Max)
	} else if c.Brackets < 1 || c.Brackets > n {
		p.Add("brackets", "%d: there are %d rungs below %v: give 1 to %d", c.Brackets, n, c.Max, n)
	}
	return p
}

func (c Halving) steps() []float64 {
	var steps []float64
	for step := c.Min; step < c.Max && len(steps) <= maxRungs; step *= c.Eta {
		steps = append(steps, step)
	}
	return steps
}

// ASHA stops each trial that, when it reaches a rung, is not in the best part of those that
// have reached it before.
func ASHA(c Halving, f tuner.Fidelity) (Stopper, error) {
	if err := c.Validate(f).Err(); err != nil {
		return nil, err
	}
	return newHalving(c.normal(f)), nil
}

// PromotingASHA pauses each trial at every rung, and lets it go on once it is in the best
// part of those that have reached it.
func PromotingASHA(c Halving, f tuner.Fidelity) (Promoter, error) {
	if err := c.Validate(f).Err(); err != nil {
		return nil, err
	}
	return promoting{newHalving(c.normal(f))}, nil
}

type halving struct {
	eta      float64
	brackets []*rungs
	shares   []float64 // of trials, summed up
}

// newHalving expects a valid and normal config.
func newHalving(c Halving) *halving {
	steps := c.steps()
	h := &halving{eta: c.Eta}
	total := 0.0
	for b := range c.Brackets {
		h.brackets = append(h.brackets, &rungs{steps: steps[b:]})
		// Hyperband's sizes: each bracket is meant to take the same work.
		left := len(steps) - b
		total += float64(len(steps)+1) / float64(left+1) * math.Pow(c.Eta, float64(left))
		h.shares = append(h.shares, total)
	}
	for b := range h.shares {
		h.shares[b] /= total
	}
	return h
}

// bracket is that of a trial. It hangs on its number alone, in the brackets' shares.
func (s *halving) bracket(number int) int {
	u := chance.New(0, 'b', 'r', 'a', uint64(number)).Float64()
	for b, share := range s.shares {
		if u < share {
			return b
		}
	}
	return len(s.shares) - 1
}

func (s *halving) catchUp(h *tuner.History) {
	for b, r := range s.brackets {
		r.catchUp(h, func(number int) bool { return len(s.brackets) == 1 || s.bracket(number) == b })
	}
}

// Wants is for the first step at or beyond a rung.
func (s *halving) Wants(h *tuner.History, number int, step float64) bool {
	before := 0.0
	if curve := h.Curve(number); len(curve) > 0 {
		before = curve[len(curve)-1].Step
	}
	return slices.ContainsFunc(s.brackets[s.bracket(number)].steps, func(rung float64) bool { return before < rung && rung <= step })
}

// Judge stops a trial at a rung that it has just reached.
func (s *halving) Judge(h *tuner.History, number int) Verdict {
	s.catchUp(h)
	r := s.brackets[s.bracket(number)]
	k := justReached(h, r.steps, number)
	if k < 0 {
		return Continue
	}
	loss, _ := lossAt(h, number, r.steps[k])
	// Of equal ones all go on.
	if n := len(r.rungs[k].all); r.rungs[k].before(entry{loss, -1}) > int(float64(n-1)/s.eta) {
		return Stop
	}
	return Continue
}

// justReached is the rung that the trial's last point is the first at, -1 if none.
func justReached(h *tuner.History, steps []float64, number int) int {
	curve := h.Curve(number)
	if len(curve) == 0 {
		return -1
	}
	before := 0.0
	if len(curve) > 1 {
		before = curve[len(curve)-2].Step
	}
	for k := len(steps) - 1; k >= 0; k-- {
		if curve[len(curve)-1].Step >= steps[k] {
			if before >= steps[k] {
				return -1
			}
			return k
		}
	}
	return -1
}

type promoting struct{ *halving }

// Judge pauses a trial at every rung that it has just reached.
func (s promoting) Judge(h *tuner.History, number int) Verdict {
	if justReached(h, s.brackets[s.bracket(number)].steps, number) < 0 {
		return Continue
	}
	return Pause
}

// Promote looks for a trial from the highest rung down.
func (s promoting) Promote(h *tuner.History) (number int, ok bool) {
	s.catchUp(h)
	for fromTop := range len(s.brackets[0].steps) {
		for _, r := range s.brackets {
			k := len(r.steps) - 1 - fromTop
			if k < 0 {
				continue
			}
			e, found := r.best(h, k)
			if found && r.rungs[k].before(e) < int(float64(len(r.rungs[k].all))/s.eta) {
				return e.number, true
			}
		}
	}
	return 0, false
}
