// Package batch computes requests together: one that comes while others wait shares their run.
//
// How long the first of a batch may wait for others is bounded, and so is how much is computed at
// once. With no delay a batch is what has come in while the lanes were busy, so that a request
// never waits where nothing is to be gained.
package batch

import (
	"context"
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
	waiting chan *item[In, Out]
	collect sync.Mutex // one lane gathers at a time, so that batches fill
	carry   *item[In, Out]
	ended   chan struct{}
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
	return &Queue[In, Out]{options: o, run: run, waiting: make(chan *item[In, Out], o.MaxWaiting), ended: make(chan struct{})}
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
	select {
	case q.waiting <- it:
	default:
		return out, fault.New(fault.Exhausted, "%d requests wait already: try again later, or give the model more replicas", q.options.MaxWaiting)
	}
	select {
	case o := <-it.done:
		return o.Value, o.Err
	case <-ctx.Done():
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
	first := q.carry
	q.carry = nil
	for first == nil || first.ctx.Err() != nil { // nobody waits for it any more
		select {
		case first = <-q.waiting:
		case <-ctx.Done():
			return nil, 0
		}
	}
	items, rows = append(items, first), first.rows
	var late <-chan time.Time
	if left := q.options.MaxDelay - time.Since(first.since); q.options.MaxDelay > 0 && left > 0 && rows < q.options.MaxRows {
		timer := time.NewTimer(left)
		defer timer.Stop()
		late = timer.C
	}
	for rows < q.options.MaxRows {
		it := q.more(ctx, late)
		if it == nil {
			break
		}
		if it.ctx.Err() != nil {
			continue
		}
		if rows+it.rows > q.options.MaxRows {
			q.carry = it
			break
		}
		items, rows = append(items, it), rows+it.rows
	}
	return items, rows
}

// more is the next request, waiting for it until it is late; nil if there is none.
func (q *Queue[In, Out]) more(ctx context.Context, late <-chan time.Time) *item[In, Out] {
	select {
	case it := <-q.waiting:
		return it
	default:
	}
	if late == nil {
		return nil
	}
	select {
	case it := <-q.waiting:
		return it
	case <-late:
	case <-ctx.Done():
	}
	return nil
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
