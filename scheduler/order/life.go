package order

import "math/bits"

// Times are put into bins, four to an octave, so that a second at a job's beginning counts as much as an
// hour after a week.
const (
	firstOctave = 4  // the first bin ends at 20 s
	lastOctave  = 25 // the last one begins after 681 days
	bins        = (lastOctave - firstOctave + 1) * 4
)

// bin is the place of a time in seconds.
func bin(seconds int64) int {
	if seconds < 1<<firstOctave {
		return 0
	}
	octave := bits.Len64(uint64(seconds)) - 1
	if octave > lastOctave {
		return bins - 1
	}
	quarter := int(seconds>>(octave-2)) & 3
	return (octave-firstOctave)*4 + quarter
}

// edge is where a bin begins, in seconds; edge(bins) is where the last one ends.
func edge(b int) int64 {
	if b == 0 {
		return 0
	}
	return int64(4+b%4) << (firstOctave + b/4 - 2)
}

// life is a life table (Kaplan and Meier, JASA 1958, on bins): how many jobs came through
// each bin, and how many ended in it. What still runs counts with what it has come through, so
// that long jobs are not unheard of until one of them ends.
type life struct {
	through, ended [bins]int32
	seen           int64 // what was noted, for whoever keeps something worked out
}

// maxCount is when a bin's counts are halved: the share stays, and what is new weighs more.
const maxCount = 1 << 16

// ran notes that a job got from one attained time to another, and whether it ended there.
func (l *life) ran(from, to int64, ended bool) {
	last := bin(to)
	for b := bin(from); b < last; b++ {
		l.note(&l.through[b], b)
	}
	if ended {
		l.note(&l.ended[last], last)
	}
}

func (l *life) note(count *int32, b int) {
	if *count++; *count >= maxCount {
		l.through[b] /= 2
		l.ended[b] /= 2
	}
	l.seen++
}

// one is a probability of 1, and fine how many bits of one a sum of times is kept without.
const (
	one  = 1 << 30
	fine = 10
)

// outlook is what a life table foretells, by the bin that a job has attained.
type outlook struct {
	effort [bins]int64 // least expected work for each that ends, in seconds: the Gittins rank
	mean   [bins]int64 // expected time that is left, in seconds
}

// foretell works an outlook out of the share of jobs that end in each bin among those that reach it.
//
// Working on a job until it ends or another span has passed costs E[min(left, span)] and ends it
// with the chance P[left <= span]; the effort is the least quotient of the two over all spans. To serve the
// least effort first has the least mean completion time on one machine (Gittins, J. R. Statist. Soc. B
// 1979; Aalto, Ayesta and Righter, QUESTA 2009), whatever the distribution of the jobs' lengths: it is
// shortest-remaining-first where lengths are known and least-attained-first where they follow a power law.
func foretell(hazard *[bins]int64) *outlook {
	o := &outlook{}
	for from := range bins {
		alive, work, best := int64(one), int64(0), int64(maxSeconds)
		for b := from; b < bins; b++ {
			end := mul(alive, hazard[b])
			work += (alive - end/2) * (edge(b+1) - edge(b)) >> fine
			alive -= end
			if ended := (one - alive) >> fine; ended > 0 {
				best = min(best, work/ended)
			}
		}
		o.effort[from], o.mean[from] = max(1, best), max(1, min(maxSeconds, work>>(30-fine)))
	}
	return o
}

// mul multiplies two probabilities.
func mul(p, q int64) int64 { return p * q / one }
