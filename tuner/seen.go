package tuner

import (
	"math"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// Errors of a search that cannot go on.
var (
	// ErrExhausted says that every configuration of a finite space was tried.
	ErrExhausted = fault.New(fault.Exhausted, "every configuration of the space has been tried")
	// ErrCrowded says that none of very many configurations satisfies the constraints.
	ErrCrowded = fault.New(fault.Invalid, "no configuration was found that satisfies the constraints and was not tried: loosen the constraints")
)

// hash is FNV-1a over the bits of a configuration, a word at a time.
func hash(c space.Config) uint64 {
	sum := uint64(14695981039346656037)
	for _, raw := range c {
		bits := math.Float64bits(raw + 0)
		if raw != raw {
			bits = 1
		}
		sum = (sum ^ bits) * 1099511628211
		sum ^= sum >> 32
	}
	return sum
}

// find is the slot of a configuration among those seen: that of an equal one, or the next
// that is free.
func (h *History) find(c space.Config) (slot uint64, found bool) {
	for slot = hash(c); ; slot++ {
		number, taken := h.seen[slot]
		if !taken {
			return slot, false
		}
		if equal(h.Config(int(number)), c) {
			return slot, true
		}
	}
}

func equal(a, b space.Config) bool {
	for i := range a {
		if a[i] != b[i] && (a[i] == a[i] || b[i] == b[i]) {
			return false
		}
	}
	return true
}

// Seen reports whether a trial of this search has the configuration.
func (h *History) Seen(c space.Config) bool {
	_, found := h.find(c)
	return found
}

// Fresh reports whether a configuration may be tried next: its constraints hold, and no
// trial of this search has it.
func (h *History) Fresh(c space.Config) bool { return h.problem.Space.Admits(c) && !h.Seen(c) }

// draws is how often a random configuration is drawn before the space is walked through.
const draws = 100

// Draw is a fresh configuration at random, each as likely as its share of the unit cube.
// The error is ErrExhausted or ErrCrowded.
func (h *History) Draw(r *chance.Rand) (space.Config, error) {
	s := h.problem.Space
	x := make([]float64, len(s.Dims()))
	c := make(space.Config, h.width)
	tries := draws
	if !h.walk.finite {
		tries = hopeless
	}
	for range tries {
		for i := range x {
			x[i] = r.Float64()
		}
		s.DecodeTo(x, c)
		if h.Fresh(c) {
			return c, nil
		}
	}
	return h.Left()
}

// Left is the first fresh configuration of a finite space in a random order that the seed
// decides. The error is ErrExhausted if there is none, and ErrCrowded if the space is not
// finite or so few satisfy the constraints that none was found.
func (h *History) Left() (space.Config, error) { return h.walk.next(h) }

// hopeless is how many configurations in a row may fail the constraints before a search
// for one is given up.
const hopeless = 1 << 16

// walk goes through a finite space in a random order. What lies before its position is not
// fresh and never will be: the position only saves time.
type walk struct {
	finite bool
	order  chance.Order
	at     uint64
	failed uint64 // configurations in a row before at that fail the constraints
}

func newWalk(s *space.Space, seed uint64) walk {
	size, finite := s.Size()
	if !finite {
		return walk{}
	}
	return walk{finite: true, order: chance.NewOrder(size, seed, 'w', 'a', 'l', 'k')}
}

func (w *walk) next(h *History) (space.Config, error) {
	if !w.finite {
		return nil, ErrCrowded
	}
	s := h.problem.Space
	for ; w.at < w.order.Size; w.at++ {
		if w.failed >= hopeless {
			return nil, ErrCrowded
		}
		c := s.Nth(w.order.At(w.at))
		switch {
		case !s.Admits(c):
			w.failed++
		case !h.Seen(c):
			return c, nil
		default:
			w.failed = 0
		}
	}
	return nil, ErrExhausted
}
