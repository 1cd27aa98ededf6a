// Package order says which of a queue's jobs goes first, and whether a running one should make room
// for one that waits: so that jobs are done early on average and none waits for ever. It is pure: what it knows
// it was told, by History and in Job. See DESIGN.md.
package order

import "time"

const (
	second     = int64(time.Second)
	maxSeconds = 1 << 31 // 68 years
)

func seconds(ns int64) int64 { return min(max(0, ns/second), maxSeconds) }

// Job is what is known of a job before it ends. Times are in nanoseconds.
type Job struct {
	Classes   []string // see Classes
	Weight    int64    // how much of the cluster it holds while it runs, in thousandths of a GPU
	Submitted int64
	Ran       int64 // so far, in all attempts, without what was lost
	Done      int64 // of Total, as the job itself reports: steps or epochs
	Total     int64 // 0: it does not report
	Limit     int64 // after which it is stopped; 0: none
}

// Rank is a place in the order: the least goes first.
type Rank int64

const (
	// grace and slowdown say when a job has waited long enough to go before all that came later: after a
	// day and so many times the work that was expected of it.
	grace    = day
	slowdown = 32
	// longest is the most that is expected of a job, which bounds how long it may be overtaken.
	longest = 30 * day
)

// Shortest orders by what is left to do: the job of the least expected work, weighted with what it holds, goes
// first (the Gittins rank; shortest remaining service first for jobs that report their progress). A job
// that has been there for a day and 32 times what was expected of it is due: such go before others, by when they
// became due. So no more than finitely many go before any job, whoever comes.
func Shortest(h *History, j Job, now int64) Rank {
	if due := Due(h, j); now >= due {
		return Rank(due - maxInt)
	}
	work := seconds(Left(h, j))
	weight := max(1, j.Weight)
	if work > maxInt/weight {
		return maxInt
	}
	return Rank(max(1, work*weight))
}

// Due is when a job goes before all that come later.
func Due(h *History, j Job) int64 {
	expected := min(h.Left(j.Classes, 0), longest)
	if j.Limit > 0 {
		expected = min(expected, j.Limit)
	}
	if j.Submitted > maxInt-grace-slowdown*expected {
		return maxInt
	}
	return j.Submitted + grace + slowdown*expected
}

// Left is how much longer a job needs, in nanoseconds: as its own progress says, or as long as that sounds worse,
// as jobs of its classes needed for each that ended. Never more than its limit. What a young job says of
// itself is little to go by, and so it gets some time to show what it is; what has run for long is taken at its word.
func Left(h *History, j Job) int64 {
	left := h.Effort(j.Classes, j.Ran)
	if j.Total > 0 && j.Done > 0 && j.Ran > 0 {
		left = min(left, h.ByProgress(j))
	}
	if j.Limit > 0 {
		left = min(left, max(second, j.Limit-j.Ran))
	}
	return left
}

// gain is how many times less the waiting one's work must be than what is left of the running one.
const gain = 2

// Worth reports whether a running job should make room for a waiting one: if half of what is left of it is more
// than the other needs and what stopping costs (work lost and done again, in milliseconds times weight). Since each
// exchange at least halves what is left of who runs, two jobs cannot take turns without end. A waiting job that is due may
// stop any that is not; none that is due is stopped.
func Worth(waiting, running Rank, cost int64) bool {
	switch {
	case running < 0:
		return false
	case waiting < 0:
		return true
	}
	rest := int64(running)/gain - int64(waiting)
	return rest > 0 && rest > cost/1000
}
