package order

import "math/bits"

// marks is into how many parts a job's progress is cut.
const marks = 16

// curve is what share of their time the jobs of a class had used at each mark of their progress. Progress is
// seldom even: a network may learn ten times slower in its first epochs, while its batches are worth little.
type curve struct {
	sum [marks + 1]int64 // of shares of one
	n   int64
}

const (
	share    = 1 << 16 // a share of 1
	maxCurve = 1 << 16
)

// add notes when a job that is done had passed the marks.
func (c *curve) add(passed *[marks + 1]int64, total int64) {
	if total <= 0 {
		return
	}
	if c.n++; c.n >= maxCurve {
		c.n /= 2
		for k := range c.sum {
			c.sum[k] /= 2
		}
	}
	last := int64(0)
	for k := 1; k <= marks; k++ {
		if passed[k] > 0 {
			last = min(share, muldiv(passed[k], share, total))
		}
		c.sum[k] += last
	}
}

// used is the share of their time that jobs of a chain of classes have used at a mark: even progress, as far as nothing
// else is known.
func used(chain []*class, k int) int64 {
	s := int64(k) * share / marks
	for _, c := range chain {
		s = (c.curve.sum[k] + s) / (c.curve.n + 1)
	}
	return s
}

// muldiv is a·b/c for numbers that are not negative, or the most there is.
func muldiv(a, b, c int64) int64 {
	high, low := bits.Mul64(uint64(max(0, a)), uint64(max(0, b)))
	if c <= 0 || high >= uint64(c) {
		return maxInt
	}
	quotient, _ := bits.Div64(high, low, uint64(c))
	return int64(min(quotient, maxInt))
}

const maxInt = 1<<63 - 1
