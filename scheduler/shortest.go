package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/evict"
	"github.com/clary-ml/clary/scheduler/order"
	"github.com/clary-ml/clary/scheduler/past"
)

// work is what is known of a gang's work, while it waits and while it runs: from it, and from what others like it
// took, comes its rank in a queue whose order is shortest.
type work struct {
	order.Track
	done, total int64 // as the gang reports
}

// lookAgain is after how long ranks are worked out anew, though nothing has happened: what runs has got on, and who waits
// may have become due.
const lookAgain = int64(time.Minute)

// workOf is what is known of a gang's work; it begins with its class.
func (c *Cluster) workOf(id string, class past.Class, submitted int64) *work {
	known := c.works[id]
	if known == nil {
		known = &work{Track: order.Track{Classes: order.Classes(class, submitted)}}
		c.works[id] = known
	}
	return known
}

// Succeeded tells that a gang has done its work, and how long it ran for it in all its attempts: others like it are
// expected to take as long. It is told once of each, and best before Drop.
func (c *Cluster) Succeeded(gang cluster.Gang, ran time.Duration) {
	known := c.works[gang.ID()]
	if known == nil { // from before this Cluster
		known = &work{Track: order.Track{Classes: order.Classes(classOf(gang), gang.Submitted)}}
	}
	c.history.Note(&known.Track, int64(ran), known.done, known.total)
	c.history.End(&known.Track, int64(ran))
}

// shortest reports whether the line's order is by what is left to do.
func (l *line) shortest() bool { return l.queue.Order == cluster.OrderShortest }

// keepsFor reports whether room is kept for an ask that finds none. In a line by what is left to do, room that is kept for the
// first lies idle, and each time that a shorter one comes it is another's; there only those that are due have it kept.
func (l *line) keepsFor(w *waiter) bool { return !l.shortest() || w.rank < 0 }

func (c *Cluster) restart(run *runner) time.Duration { return cmp.Or(run.Restart, c.opts.Restart) }

// ran is how long the gang has worked, in all its attempts.
func (c *Cluster) ran(run *runner, now int64) int64 {
	return int64(run.Ran) + max(0, now-run.Started-int64(c.restart(run)))
}

// progress notes what the gang reports of its work.
func (run *runner) progress(done, total int64) {
	if total > 0 {
		run.known.done, run.known.total = done, total
	}
}

func (c *Cluster) rankRunning(run *runner, now int64) order.Rank {
	return order.Shortest(c.history, order.Job{
		Classes: run.known.Classes, Weight: evict.Weight(run.Allocations), Submitted: run.Submitted,
		Ran: c.ran(run, now), Done: run.known.done, Total: run.known.total, Limit: int64(run.Limit),
	}, now)
}

func (c *Cluster) rankWaiting(w *waiter, now int64) order.Rank {
	amount := w.needs.Most().Amount
	return order.Shortest(c.history, order.Job{
		Classes: w.known.Classes, Weight: max(1, amount.MilliGPU+amount.MilliCPU/evict.CoresPerGPU), Submitted: w.Submitted,
		Ran: int64(w.Ran), Done: w.known.done, Total: w.known.total, Limit: int64(w.Limit),
	}, now)
}

// rank works out the order of the lines that go by what is left to do.
func (r *round) rank() {
	for _, l := range r.sorted {
		if !l.shortest() {
			continue
		}
		runs := slices.SortedFunc(maps.Values(l.running), func(a, b *runner) int { return cmp.Compare(a.ID, b.ID) })
		for _, run := range runs {
			r.history.Note(&run.known.Track, r.ran(run, r.now), run.known.done, run.known.total)
		}
		for _, run := range runs {
			run.rank = r.rankRunning(run, r.now)
		}
		for _, w := range l.asks {
			w.rank = r.rankWaiting(w, r.now)
		}
		slices.SortFunc(l.asks, byAsk)
		if len(l.asks) > 0 {
			r.recall(r.now + lookAgain)
		}
	}
}

// unrank puts a line in the order of those that do not go by what is left to do.
func (l *line) unrank() {
	for _, w := range l.asks {
		w.rank = 0
	}
	slices.SortFunc(l.asks, byAsk)
}

// worthIt reports whether a gang of the same line should make room for an ask because it has far more left to do.
func (r *round) worthIt(w *waiter, run *runner) bool {
	return order.Worth(w.rank, run.rank, r.cost(run, r.now))
}

// loss is by what victims are chosen: what stopping loses, or among those of a line that goes by what is left, who has
// most left.
func (r *round) loss(w *waiter, run *runner) int64 {
	if run.line != w.line || run.Priority != w.Priority {
		return r.cost(run, r.now)
	}
	return (1 << 62) / max(1, int64(run.rank))
}
