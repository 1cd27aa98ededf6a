package data

// Rounds deals one epoch's rows out in steps. Every worker makes the same number of
// steps, and each can tell how many rows all of them together have in a step: that is
// what a row's gradient is divided by, so that the servers only need to add.
type Rounds struct {
	batch int
	rows  []int // by worker
}

// NewRounds plans an epoch of so many training rows, a global batch and workers.
func NewRounds(rows, batch, workers int) Rounds {
	r := Rounds{batch: batch, rows: make([]int, workers)}
	for w := range workers {
		r.rows[w] = share(rows, workers, w)
	}
	return r
}

// RowsOf is the number of training rows that a worker has left in the epoch.
func (r Rounds) RowsOf(worker int) int { return r.rows[worker] }

// BatchOf is the number of rows that a worker computes on in one step, at least one.
func (r Rounds) BatchOf(worker int) int { return max(share(r.batch, len(r.rows), worker), 1) }

// Steps is the number of steps of an epoch.
func (r Rounds) Steps() int {
	steps := 0
	for w := range r.rows {
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
	for w := range r.rows {
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

// Done is a part of an epoch that was done by another number of workers.
type Done struct {
	Workers int `json:"workers"`
	Steps   int `json:"steps"`
}

// Left plans what an epoch of so many training rows has left after earlier parts, and the order in
// which a worker takes its own rows: so that each is taken once, whatever the numbers of workers
// were. It depends on nothing but its arguments; without earlier parts it is Order and NewRounds.
func Left(rows, batch, workers int, seed int64, epoch, worker int, done []Done) (order []int, r Rounds) {
	if len(done) == 0 {
		r = NewRounds(rows, batch, workers)
		return Order(r.RowsOf(worker), seed, worker, epoch), r
	}
	taken := make([]bool, rows)
	for _, part := range done {
		hands, r := deal(taken, batch, part.Workers, seed, epoch)
		for w, hand := range hands {
			for _, local := range hand[:min(part.Steps*r.BatchOf(w), len(hand))] {
				taken[local*part.Workers+w] = true
			}
		}
	}
	hands, r := deal(taken, batch, workers, seed, epoch)
	return hands[worker], r
}

// deal gives each worker those of its rows that are not taken, shuffled. Of the training rows it has
// every workers-th, and counts them from 0.
func deal(taken []bool, batch, workers int, seed int64, epoch int) ([][]int, Rounds) {
	hands, r := make([][]int, workers), Rounds{batch: batch, rows: make([]int, workers)}
	for w := range workers {
		var left []int
		for row := w; row < len(taken); row += workers {
			if !taken[row] {
				left = append(left, row/workers)
			}
		}
		for _, i := range Order(len(left), seed, w, epoch) {
			hands[w] = append(hands[w], left[i])
		}
		r.rows[w] = len(left)
	}
	return hands, r
}
