package tuner

import "cmp"

// Merit orders the trials of one objective: those within the limits by their loss, then
// those outside by how far, then failed ones. Equal ones go by number. A trial that has only
// a curve counts with its last point, however far it got: measured with halving on curves
// that fall as they go on, that finds better trials than putting those that got further
// before. It is a total order, and depends on nothing but how losses compare.
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
	meritUnknown // stopped before its first point
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
		if curve := h.curves[number]; len(curve) > 0 {
			m.loss = h.problem.Objectives[0].Loss(curve[len(curve)-1].Value)
		} else {
			m.class = meritUnknown
		}
	case Failed, Infeasible:
		m.class = meritFailed
	default:
		return m, false
	}
	return m, true
}

// MeritAt is the merit that a trial had at a point of its curve.
func (h *History) MeritAt(number, point int) Merit {
	return Merit{number: number, loss: h.problem.Objectives[0].Loss(h.curves[number][point].Value)}
}

// Compare is negative if m is better than other.
func (m Merit) Compare(other Merit) int {
	return cmp.Or(
		cmp.Compare(m.class, other.class), cmp.Compare(m.rank, other.rank),
		cmp.Compare(m.loss, other.loss), cmp.Compare(m.number, other.number),
	)
}

// Measured reports that the trial has a value, be it one on its way.
func (m Merit) Measured() bool { return m.class < meritUnknown }

// Number is that of the trial.
func (m Merit) Number() int { return m.number }
