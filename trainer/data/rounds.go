package data

// Rounds deals one epoch's rows out in steps. Every worker makes the same number of
// steps, and each can tell how many rows all of them together have in a step: that is
// what a row's gradient is divided by, so that the servers only need to add.
type Rounds struct {
	rows, batch, workers int
}

// NewRounds plans an epoch of so many training rows, a global batch and workers.
func NewRounds(rows, batch, workers int) Rounds {
	return Rounds{rows: rows, batch: batch, workers: workers}
}

// RowsOf is the number of training rows that a worker holds.
func (r Rounds) RowsOf(worker int) int { return share(r.rows, r.workers, worker) }

// BatchOf is the number of rows that a worker computes on in one step, at least one.
func (r Rounds) BatchOf(worker int) int { return max(share(r.batch, r.workers, worker), 1) }

// Steps is the number of steps of an epoch.
func (r Rounds) Steps() int {
	steps := 0
	for w := range r.workers {
		b := r.BatchOf(w)
		steps = max(steps, (r.RowsOf(w)+b-1)/b)
	}
	return steps
}

// Part is the range of its own shuffled rows that a worker takes in a step. It is empty
// when the worker has none left.
func (r Rounds) Part(worker, step int) (from, to int) {
	rows, b := r.RowsOf(worker), r.BatchOf(worker)
	return min(step*b, rows), min((step+1)*b, rows)
}

// Total is the number of rows that all workers together compute on in a step.
func (r Rounds) Total(step int) int {
	total := 0
	for w := range r.workers {
		from, to := r.Part(w, step)
		total += to - from
	}
	return total
}

// share is what the i-th of n gets of a total, the first ones one more.
func share(total, n, i int) int {
	s := total / n
	if i < total%n {
		s++
	}
	return s
}
