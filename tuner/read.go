package tuner

import (
	"iter"
	"slices"

	"github.com/clary-ml/clary/tuner/space"
)

// What the history answers with are views of its memory: the caller must not change them.

// Config is the configuration of a trial.
func (h *History) Config(number int) space.Config {
	return space.Config(h.configs[number*h.width : (number+1)*h.width : (number+1)*h.width])
}

// State is the state of a trial.
func (h *History) State(number int) State { return h.states[number] }

// Values are what a complete trial measured for each objective, NaN of any other.
func (h *History) Values(number int) []float64 {
	n := len(h.problem.Objectives)
	return h.row(number)[:n:n]
}

// Loss is the value of an objective as something to minimise, NaN if the trial is not
// complete.
func (h *History) Loss(number, objective int) float64 {
	return h.problem.Objectives[objective].Loss(h.row(number)[objective])
}

// Limits are what a complete trial measured for each limit, NaN of any other.
func (h *History) Limits(number int) []float64 { return h.row(number)[len(h.problem.Objectives):] }

// Excess is how far the trial lies outside all its limits together; 0 is feasible.
func (h *History) Excess(number int) float64 {
	total := 0.0
	for i, v := range h.Limits(number) {
		total += max(h.problem.Limits[i].Excess(v), 0)
	}
	return total
}

// Curve is the learning curve of a trial.
func (h *History) Curve(number int) []Point { return h.curves[number] }

// Ended are the numbers of the trials that ended, in the order of their end. Those at its
// beginning never change, so a sampler that has read n of them goes on at n.
func (h *History) Ended() []int32 { return h.ended }

// Events is how many points of curves and ends there are. They never change, so that what
// has read n of them goes on at n.
func (h *History) Events() int { return len(h.events) }

// Event is the trial of an event, and whether it ended; else its curve has one point more.
// The points of a trial come in the order of its curve.
func (h *History) Event(i int) (number int, ended bool) {
	if e := h.events[i]; e < 0 {
		return int(^e), true
	}
	return int(h.events[i]), false
}

// Pending are the numbers of the trials that have not ended, ascending; paused ones are
// among them.
func (h *History) Pending() []int { return h.pending }

// Prior are the trials of earlier sweeps that say something about this space.
func (h *History) Prior() []Prior { return h.prior }

// Trial is all that is known of a trial.
func (h *History) Trial(number int) Trial {
	t := Trial{
		Number: number, Config: h.Config(number), State: h.states[number],
		Curve: h.curves[number], Order: h.orders[number],
	}
	if t.State == Complete {
		t.Values, t.Limits = h.Values(number), h.Limits(number)
	}
	return t
}

// All are all trials, in the order of their numbers.
func (h *History) All() iter.Seq[Trial] {
	return func(yield func(Trial) bool) {
		for number := range h.Len() {
			if !yield(h.Trial(number)) {
				return
			}
		}
	}
}

// Better reports whether complete trial a is strictly better than b: feasible before not,
// then the smaller excess, then dominance (one objective: the smaller loss).
func (h *History) Better(a, b int) bool {
	if x, y := h.Excess(a), h.Excess(b); x != y {
		return x < y
	}
	return h.dominates(a, b)
}

func (h *History) dominates(a, b int) bool {
	better := false
	for i := range h.problem.Objectives {
		x, y := h.Loss(a, i), h.Loss(b, i)
		if x > y {
			return false
		}
		better = better || x < y
	}
	return better
}

// Best is the number of the best trial observed: complete, feasible if any is, the first
// of equals. With several objectives it is one of the Pareto front. ok is false if nothing
// is complete.
func (h *History) Best() (number int, ok bool) { return h.best, h.best >= 0 }

// Restore builds a history from all its trials, in the order of their numbers.
func Restore(problem Problem, trials iter.Seq[Trial]) (*History, error) {
	h, err := NewHistory(problem)
	if err != nil {
		return nil, err
	}
	type event struct {
		order  uint64
		number int
		point  *Point
		result Result
	}
	var events []event
	var paused []int
	for t := range trials {
		number, err := h.Add(t.Config)
		if err != nil {
			return nil, err
		}
		if t.State == Paused {
			paused = append(paused, number)
		}
		for i := range t.Curve {
			events = append(events, event{order: t.Curve[i].Order, number: number, point: &t.Curve[i]})
		}
		if t.State.Ended() {
			events = append(events, event{order: t.Order, number: number, result: Result{State: t.State, Values: t.Values, Limits: t.Limits}})
		}
	}
	slices.SortFunc(events, func(a, b event) int {
		if a.order < b.order {
			return -1
		}
		return 1
	})
	for _, e := range events {
		h.results = e.order - 1 // orders stay as they were, also where a value was not kept
		if e.point != nil {
			err = h.Report(e.number, e.point.Step, e.point.Value)
		} else {
			err = h.end(e.number, e.result)
		}
		if err != nil {
			return nil, err
		}
	}
	h.pending = slices.DeleteFunc(h.pending, func(number int) bool { return h.states[number].Ended() })
	for _, number := range paused {
		if err := h.Pause(number); err != nil {
			return nil, err
		}
	}
	return h, nil
}
