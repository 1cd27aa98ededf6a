package tuner

import (
	"cmp"
	"math"
)

// Merit orders the trials of one objective: complete and feasible ones by their loss, then
// those outside the limits by how far, then those with a curve only, first those that got
// further, then failed ones. Equal ones go by number. It is a total order, and depends on
// nothing but how losses compare.
type Merit struct {
	class  uint8
	rank   float64 // within the class, less is better
	loss   float64 // among equal ranks
	number int
}

// Classes of Merit, best first.
const (
	meritFeasible = iota
	meritOutside
	meritStopped
	meritFailed
)

// MeritOf is the merit of a trial; ok is false if it says nothing: it was cancelled, or has
// not ended and no curve. That of an ended trial never changes. With several objectives only the first counts.
func (h *History) MeritOf(number int) (m Merit, ok bool) {
	m.number = number
	switch h.states[number] {
	case Complete:
		m.rank, m.loss = h.Excess(number), h.Loss(number, 0)
		if m.rank > 0 {
			m.class = meritOutside
		}
	case Stopped, Pending, Paused:
		if len(h.curves[number]) == 0 && !h.states[number].Ended() {
			return m, false
		}
		m.class, m.rank, m.loss = meritStopped, math.Inf(1), math.Inf(1)
		if curve := h.curves[number]; len(curve) > 0 {
			last := curve[len(curve)-1]
			m.rank, m.loss = -last.Step, h.problem.Objectives[0].Loss(last.Value)
		}
	case Failed, Infeasible:
		m.class = meritFailed
	default:
		return m, false
	}
	return m, true
}

// Compare is negative if m is better than other.
func (m Merit) Compare(other Merit) int {
	return cmp.Or(
		cmp.Compare(m.class, other.class), cmp.Compare(m.rank, other.rank),
		cmp.Compare(m.loss, other.loss), cmp.Compare(m.number, other.number),
	)
}

// Good reports that the trial is complete and within all limits.
func (m Merit) Good() bool { return m.class == meritFeasible }

// Measured reports that the trial has at least a value on its way.
func (m Merit) Measured() bool { return m.class < meritFailed && !math.IsInf(m.loss, 1) }

// Number is that of the trial.
func (m Merit) Number() int { return m.number }
