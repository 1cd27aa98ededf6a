// Package batch computes requests together: one that comes while others wait shares their run.
//
// How long the first of a batch may wait for others is bounded, and so is how much is computed at
// once. With no delay a batch is what has come in while the lanes were busy, so that a request
// never waits where nothing is to be gained.
package batch

import (
	"container/list"
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/internal/fault"
)

// Options bound the batches.
type Options struct {
	// MaxRows is the most that a batch has, unless one request alone has more.
	MaxRows int
	// MaxDelay is how long the first request of a batch waits for others; 0 is not at all.
	MaxDelay time.Duration
	// MaxWaiting is how many requests may wait; the next is refused.
	MaxWaiting int
	// Lanes are how many batches are computed at once.
	Lanes int
	// Ran hears of every batch, if it is set.
	Ran func(requests, rows int, took time.Duration)
}

// Outcome is what became of one request.
type Outcome[Out any] struct {
	Value Out
	Err   error
}

// Queue gathers requests.
type Queue[In, Out any] struct {
	options Options
	run     func(context.Context, []In) []Outcome[Out]
	collect sync.Mutex // one lane gathers at a time, so that batches fill
	arrived chan struct{}
	forever chan time.Time
	ended   chan struct{}

	mu      sync.Mutex
	waiting list.List // of *item, the oldest first
}

type item[In, Out any] struct {
	ctx   context.Context
	in    In
	rows  int
	since time.Time
	done  chan Outcome[Out]
}

// New makes a queue; run computes a batch, and answers each of its requests in order.
func New[In, Out any](o Options, run func(context.Context, []In) []Outcome[Out]) *Queue[In, Out] {
	o.MaxRows, o.MaxWaiting, o.Lanes = max(o.MaxRows, 1), max(o.MaxWaiting, 1), max(o.Lanes, 1)
	return &Queue[In, Out]{
		options: o, run: run,
		arrived: make(chan struct{}, 1), forever: make(chan time.Time), ended: make(chan struct{}),
	}
}

// Do waits for a request's answer, or for the end of ctx. A full queue refuses at once.
func (q *Queue[In, Out]) Do(ctx context.Context, in In, rows int) (out Out, err error) {
	it := &item[In, Out]{ctx: ctx, in: in, rows: rows, done: make(chan Outcome[Out], 1)}
	if q.options.MaxDelay > 0 {
		it.since = time.Now()
	}
	select {
	case <-q.ended:
		return out, errEnded()
	default:
	}
	place := q.push(it)
	if place == nil {
		return out, fault.New(fault.Exhausted, "%d requests wait already: try again later, or give the model more replicas", q.options.MaxWaiting)
	}
	select {
	case o := <-it.done:
		return o.Value, o.Err
	case <-ctx.Done():
		q.leave(place)
		return out, context.Cause(ctx)
	case <-q.ended:
		select {
		case o := <-it.done:
			return o.Value, o.Err
		default:
			return out, errEnded()
		}
	}
}

// push puts a request behind the others; nil is no place.
func (q *Queue[In, Out]) push(it *item[In, Out]) *list.Element {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting.Len() >= q.options.MaxWaiting {
		return nil
	}
	select {
	case q.arrived <- struct{}{}:
	default: // who gathers will look anyway
	}
	return q.waiting.PushBack(it)
}

// leave takes a request out that nobody waits for any more, if no batch has it.
func (q *Queue[In, Out]) leave(place *list.Element) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting.Remove(place)
}

// pop takes the oldest request out, unless it has more than room rows: then it is left there.
func (q *Queue[In, Out]) pop(room int) (it *item[In, Out], left bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for place := q.waiting.Front(); place != nil; place = q.waiting.Front() {
		it := place.Value.(*item[In, Out])
		waited := it.ctx.Err() == nil
		if waited && it.rows > room {
			return nil, true
		}
		q.waiting.Remove(place)
		if waited {
			return it, false
		}
	}
	return nil, false
}

func errEnded() error { return fault.New(fault.Unready, "the model server is ending: ask another") }

// Run computes until ctx ends. What is waited for then is refused.
func (q *Queue[In, Out]) Run(ctx context.Context) error {
	defer close(q.ended)
	group, ctx := errgroup.WithContext(ctx)
	for range q.options.Lanes {
		group.Go(func() error {
			for {
				items, rows := q.next(ctx)
				if items == nil {
					return nil
				}
				q.answer(ctx, items, rows)
			}
		})
	}
	return group.Wait()
}

// next gathers a batch; nil is the end.
func (q *Queue[In, Out]) next(ctx context.Context) (items []*item[In, Out], rows int) {
	q.collect.Lock()
	defer q.collect.Unlock()
	if ctx.Err() != nil {
		return nil, 0
	}
	first := q.more(ctx, math.MaxInt, q.forever)
	if first == nil {
		return nil, 0
	}
	items, rows = append(items, first), first.rows
	var late <-chan time.Time
	if left := q.options.MaxDelay - time.Since(first.since); q.options.MaxDelay > 0 && left > 0 && rows < q.options.MaxRows {
		timer := time.NewTimer(left)
		defer timer.Stop()
		late = timer.C
	}
	for rows < q.options.MaxRows {
		it := q.more(ctx, q.options.MaxRows-rows, late)
		if it == nil {
			break
		}
		items, rows = append(items, it), rows+it.rows
	}
	return items, rows
}

// more is the next request, waiting for it until it is late; nil if there is none, or if it has more
// than room rows.
func (q *Queue[In, Out]) more(ctx context.Context, room int, late <-chan time.Time) *item[In, Out] {
	for {
		it, left := q.pop(room)
		if it != nil || left || late == nil {
			return it
		}
		select {
		case <-q.arrived:
		case <-late:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (q *Queue[In, Out]) answer(ctx context.Context, items []*item[In, Out], rows int) {
	in := make([]In, len(items))
	for i, it := range items {
		in[i] = it.in
	}
	began := time.Now()
	// A request that is alone may be given up; one of several is not the others' to end.
	if len(items) == 1 {
		ctx = items[0].ctx
	}
	out := q.run(ctx, in)
	if q.options.Ran != nil {
		q.options.Ran(len(items), rows, time.Since(began))
	}
	for i, it := range items {
		if i < len(out) {
			it.done <- out[i]
		} else {
			it.done <- Outcome[Out]{Err: fault.New(fault.Internal, "the model gave %d answers to %d requests", len(out), len(items))}
		}
	}
}
