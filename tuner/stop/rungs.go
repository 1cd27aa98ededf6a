package stop

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/clary-ml/clary/tuner"
)

// rungs are the fidelities at which trials are compared, with what was measured there. They
// are filled from the events of a history; what they hold depends only on its rows.
type rungs struct {
	steps []float64 // ascending
	of    *tuner.History
	read  int // events
	rungs []rung
	at    map[int]int // how many rungs each open trial has reached
}

// rung is what the trials that reached it measured there.
type rung struct {
	all     []entry // sorted, but for the last added
	added   int
	waiting queue // open trials; some have gone on since
}

// many added losses are sorted in at once.
const many = 64

func (r *rung) add(e entry) {
	r.all = append(r.all, e)
	r.added++
}

// settle sorts what was added.
func (r *rung) settle() {
	if r.added > many {
		slices.SortFunc(r.all, entry.compare)
		r.added = 0
	}
	for ; r.added > 0; r.added-- {
		sorted := len(r.all) - r.added
		e := r.all[sorted]
		at, _ := slices.BinarySearchFunc(r.all[:sorted], e, entry.compare)
		copy(r.all[at+1:sorted+1], r.all[at:sorted])
		r.all[at] = e
	}
}

// before is how many at the rung come before an entry.
func (r *rung) before(e entry) int {
	at, _ := slices.BinarySearchFunc(r.all, e, entry.compare)
	return at
}

// entry is a trial at a rung.
type entry struct {
	loss   float64
	number int
}

func (e entry) compare(other entry) int {
	return cmp.Or(cmp.Compare(e.loss, other.loss), cmp.Compare(e.number, other.number))
}

// queue is a heap, the best trial first.
type queue []entry

func (q queue) Len() int           { return len(q) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q queue) Less(i, j int) bool { return q[i].compare(q[j]) < 0 }
func (q *queue) Push(e any)        { *q = append(*q, e.(entry)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// catchUp reads what is new of the trials for which mine is true.
func (r *rungs) catchUp(h *tuner.History, mine func(number int) bool) {
	if r.of != h {
		r.of, r.read, r.rungs, r.at = h, 0, make([]rung, len(r.steps)), make(map[int]int)
	}
	for ; r.read < h.Events(); r.read++ {
		number, ended := h.Event(r.read)
		switch {
		case !mine(number):
		case ended:
			delete(r.at, number)
		default:
			r.climb(h, number)
		}
	}
	for k := range r.rungs {
		r.rungs[k].settle()
	}
}

// climb enters a trial into the rungs that it has reached since.
func (r *rungs) climb(h *tuner.History, number int) {
	for k := r.at[number]; k < len(r.steps); k++ {
		loss, ok := lossAt(h, number, r.steps[k])
		if !ok {
			return
		}
		r.rungs[k].add(entry{loss, number})
		heap.Push(&r.rungs[k].waiting, entry{loss, number})
		r.at[number] = k + 1
	}
}

// best is the best paused trial that waits at a rung.
func (r *rungs) best(h *tuner.History, k int) (best entry, ok bool) {
	waiting := &r.rungs[k].waiting
	var running []entry
	for waiting.Len() > 0 && !ok {
		best = (*waiting)[0]
		switch {
		case r.at[best.number] != k+1: // it ended, or reached the next rung
			heap.Pop(waiting)
		case h.State(best.number) != tuner.Paused: // on its way to the next rung
			running = append(running, heap.Pop(waiting).(entry))
		default:
			ok = true
		}
	}
	for _, e := range running {
		heap.Push(waiting, e)
	}
	return best, ok
}
