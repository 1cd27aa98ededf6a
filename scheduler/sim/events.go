// Package sim plays schedulers through virtual time: events in order of their instant,
// nothing else moves the clock. Its subpackages replay published experiments (sim/queue,
// sim/tiresias), first with the policies that the publications used, which proves the
// simulator, and then with Clary's own scheduler. See DESIGN.md.
package sim

import "container/heap"

// Events holds what is still to happen. Events of one instant come together and in the
// order in which they were added, so that a run depends on nothing but its input.
// The zero Events is empty, at time zero.
type Events[E any] struct {
	now   int64
	added uint64
	heap  eventHeap[E]
}

// At adds an event. An instant that has passed is taken as now: nothing happens in the past.
func (e *Events[E]) At(instant int64, event E) {
	heap.Push(&e.heap, timed[E]{at: max(instant, e.now), order: e.added, event: event})
	e.added++
}

// Next moves time to the next event and gives all events of that instant. It reports
// false when nothing is left.
func (e *Events[E]) Next() (now int64, events []E, more bool) {
	if len(e.heap) == 0 {
		return e.now, nil, false
	}
	e.now = e.heap[0].at
	for len(e.heap) > 0 && e.heap[0].at == e.now {
		events = append(events, heap.Pop(&e.heap).(timed[E]).event)
	}
	return e.now, events, true
}

type timed[E any] struct {
	at    int64
	order uint64
	event E
}

type eventHeap[E any] []timed[E]

func (h eventHeap[E]) Len() int { return len(h) }

func (h eventHeap[E]) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}

func (h eventHeap[E]) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push and Pop are container/heap's.
func (h *eventHeap[E]) Push(x any) { *h = append(*h, x.(timed[E])) }

func (h *eventHeap[E]) Pop() any {
	last := len(*h) - 1
	popped := (*h)[last]
	(*h)[last] = timed[E]{}
	*h = (*h)[:last]
	return popped
}
