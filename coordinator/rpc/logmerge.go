package rpc

import (
	"container/heap"
	"context"

	"golang.org/x/sync/errgroup"

	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// merge tells the logs of all tasks in order of time.
func (g *logGathering) merge(ctx context.Context) error {
	tasks, _, err := g.tasks(ctx, false)
	if err != nil {
		return err
	}
	rise, err := g.jobs.seat(len(tasks))
	if err != nil {
		return err
	}
	defer rise()
	readers, ctx := errgroup.WithContext(ctx)
	var logs []*mergedLog
	for _, task := range tasks {
		log := &mergedLog{task: task.ID, batches: make(chan []*claryv1.LogEntry)}
		logs = append(logs, log)
		readers.Go(func() error {
			defer close(log.batches)
			return g.reader(task, log.put).read(ctx)
		})
	}
	readers.Go(func() error { return g.mergeLogs(ctx, logs) })
	return readers.Wait()
}

// mergedLog is one task's part of a merge.
type mergedLog struct {
	task    string
	batches chan []*claryv1.LogEntry
	next    []*claryv1.LogEntry // not empty while it is in the heap
}

func (l *mergedLog) put(ctx context.Context, batch []*claryv1.LogEntry) error {
	select {
	case l.batches <- batch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fill waits for the log to go on; false at its end.
func (l *mergedLog) fill(ctx context.Context) (bool, error) {
	select {
	case l.next = <-l.batches:
		return len(l.next) > 0, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// byTime is a heap of logs, the one with the earliest entry first.
type byTime []*mergedLog

func (h byTime) Len() int           { return len(h) }
func (h byTime) Less(a, b int) bool { return h[a].next[0].GetTime() < h[b].next[0].GetTime() }
func (h byTime) Swap(a, b int)      { h[a], h[b] = h[b], h[a] }
func (h *byTime) Push(log any)      { *h = append(*h, log.(*mergedLog)) }
func (h *byTime) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func (g *logGathering) mergeLogs(ctx context.Context, logs []*mergedLog) error {
	var order byTime
	for _, log := range logs {
		more, err := log.fill(ctx)
		if err != nil {
			return err
		}
		if more {
			order = append(order, log)
		}
	}
	heap.Init(&order)
	var chunks []*claryv1.LogChunk
	size := 0
	for len(order) > 0 {
		log := order[0]
		n := order.run()
		chunks = append(chunks, &claryv1.LogChunk{Task: log.task, Entries: log.next[:n]})
		size += sizeOf(chunks[len(chunks)-1:])
		log.next = log.next[n:]
		if size >= fullResponse || len(log.next) == 0 {
			if err := g.tell(ctx, chunks...); err != nil {
				return err
			}
			chunks, size = nil, 0
		}
		if len(log.next) == 0 {
			more, err := log.fill(ctx)
			if err != nil {
				return err
			}
			if !more {
				heap.Pop(&order)
				continue
			}
		}
		heap.Fix(&order, 0)
	}
	return nil
}

// run is how many entries of the first log come before any of another.
func (h byTime) run() int {
	first := h[0].next
	for n := 1; n < len(first); n++ {
		for _, other := range h[1:min(3, len(h))] { // the next is one of the first's two children
			if first[n].GetTime() > other.next[0].GetTime() {
				return n
			}
		}
	}
	return len(first)
}
