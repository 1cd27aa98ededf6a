package tuner

import (
	"math"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/space"
)

// History is a problem with all that was tried, in order. It only grows: trials are added,
// report on their way and end once. Rows are kept flat, 143 bytes a trial of eight parameters,
// so that a million fit. It is not safe for use from several goroutines.
type History struct {
	problem Problem
	width   int // parameters
	prior   []Prior

	configs []float64 // width a trial
	values  []float64 // objectives and limits of a trial, NaN if it has none
	states  []State
	orders  []uint64
	curves  map[int][]Point

	ended   []int32 // in the order of their end
	events  []int32 // the trial of each point of a curve, and the complement of one that ended
	pending []int   // ascending
	results uint64  // reports and ends so far
	best    int     // -1: none

	seen     map[uint64]int32 // by the hash of a configuration, see find
	distinct int
	walk     walk
}

// NewHistory is the beginning of a search. The error lists every mistake of the problem
// (cluster.Problems).
func NewHistory(problem Problem) (*History, error) {
	if err := problem.Validate().Err(); err != nil {
		return nil, err
	}
	h := &History{
		problem: problem, width: len(problem.Space.Names()),
		curves: make(map[int][]Point), seen: make(map[uint64]int32), best: -1,
	}
	h.prior = translate(problem)
	h.walk = newWalk(problem.Space, problem.Seed)
	return h, nil
}

// Problem is what is searched.
func (h *History) Problem() Problem { return h.problem }

// Len is how many trials there are; it is the number of the next one.
func (h *History) Len() int { return len(h.states) }

// Add begins a trial and returns its number. The configuration must lie in the space.
func (h *History) Add(c space.Config) (int, error) {
	if problems := h.problem.Space.Check(c); len(problems) > 0 {
		return 0, fault.New(fault.Invalid, "trial %d: %w", h.Len(), problems)
	}
	number := h.Len()
	h.configs = append(h.configs, c...)
	for range len(h.problem.Objectives) + len(h.problem.Limits) {
		h.values = append(h.values, math.NaN())
	}
	h.states = append(h.states, Pending)
	h.orders = append(h.orders, 0)
	h.pending = append(h.pending, number)
	if slot, found := h.find(c); !found {
		h.seen[slot] = int32(number)
		h.distinct++
	}
	return number, nil
}

// Report adds a point to the learning curve of a pending trial. Steps ascend; a value that
// is not finite ends nothing, but is not kept either.
func (h *History) Report(number int, step, value float64) error {
	if err := h.checkPending(number); err != nil {
		return err
	}
	curve := h.curves[number]
	if !(step > 0) || math.IsInf(step, 0) || len(curve) > 0 && step <= curve[len(curve)-1].Step {
		return fault.New(fault.Invalid, "trial %d: step %v: steps are above 0 and ascend", number, step)
	}
	h.results++
	if finite(value) {
		h.events = append(h.events, int32(number))
		h.curves[number] = append(curve, Point{Step: step, Value: value, Order: h.results})
	}
	return nil
}

// Pause says that a pending trial holds no worker any more, and waits.
func (h *History) Pause(number int) error {
	if err := h.checkPending(number); err != nil {
		return err
	}
	h.states[number] = Paused
	return nil
}

// Resume says that a paused trial goes on.
func (h *History) Resume(number int) error {
	if err := h.checkOpen(number); err != nil {
		return err
	}
	if h.states[number] != Paused {
		return fault.New(fault.Conflict, "trial %d is %s: only a paused one goes on", number, h.states[number])
	}
	h.states[number] = Pending
	return nil
}

// End ends a pending or paused trial. One that says Complete with a value that is not finite is
// Failed: nothing can be learned from the value.
func (h *History) End(number int, r Result) error {
	if err := h.end(number, r); err != nil {
		return err
	}
	if at, found := slices.BinarySearch(h.pending, number); found {
		h.pending = slices.Delete(h.pending, at, at+1)
	}
	return nil
}

// end leaves the trial among those pending.
func (h *History) end(number int, r Result) error {
	if err := h.checkOpen(number); err != nil {
		return err
	}
	objectives, limits := len(h.problem.Objectives), len(h.problem.Limits)
	switch {
	case !r.State.Ended() || r.State > Paused:
		return fault.New(fault.Invalid, "trial %d: it cannot end as %s", number, r.State)
	case r.State == Complete && (len(r.Values) != objectives || len(r.Limits) != limits):
		return fault.New(fault.Invalid, "trial %d: %d values and %d limits: the problem has %d objectives and %d limits", number, len(r.Values), len(r.Limits), objectives, limits)
	case r.State == Complete && !(allFinite(r.Values) && allFinite(r.Limits)):
		r.State = Failed
	}
	h.results++
	h.states[number], h.orders[number] = r.State, h.results
	h.ended = append(h.ended, int32(number))
	h.events = append(h.events, ^int32(number))
	if r.State == Complete {
		row := h.row(number)
		copy(row, r.Values)
		copy(row[objectives:], r.Limits)
		if h.best < 0 || h.Better(number, h.best) {
			h.best = number
		}
	}
	return nil
}

func (h *History) checkPending(number int) error {
	if err := h.checkOpen(number); err != nil {
		return err
	}
	if h.states[number] == Paused {
		return fault.New(fault.Conflict, "trial %d is paused: resume it first", number)
	}
	return nil
}

func (h *History) checkOpen(number int) error {
	if number < 0 || number >= h.Len() {
		return fault.New(fault.NotFound, "trial %d: there are trials 0 to %d", number, h.Len()-1)
	}
	if h.states[number].Ended() {
		return fault.New(fault.Conflict, "trial %d is %s already", number, h.states[number])
	}
	return nil
}

func (h *History) row(number int) []float64 {
	n := len(h.problem.Objectives) + len(h.problem.Limits)
	return h.values[number*n : (number+1)*n : (number+1)*n]
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func allFinite(values []float64) bool {
	return !slices.ContainsFunc(values, func(v float64) bool { return !finite(v) })
}
