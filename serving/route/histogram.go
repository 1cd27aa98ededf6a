package route

import (
	"math"
	"math/bits"
	"time"
)

// Histogram counts durations in buckets that are a sixteenth of their power of two wide, from a
// microsecond on: its quantiles are right to 7 %. Buckets are stored up to the last that is not 0.
type Histogram struct {
	Counts []int64 `json:"counts,omitempty"`
}

const (
	subBits = 4                            // a power of two has 1 << subBits buckets
	powers  = 28                           // the last begins at 36 minutes
	Buckets = 1<<subBits + powers<<subBits // of a whole histogram
)

// BucketOf is the bucket of a duration.
func BucketOf(d time.Duration) int {
	us := max(d.Microseconds(), 0)
	if us < 1<<subBits {
		return int(us)
	}
	power := bits.Len64(uint64(us)) - 1 - subBits
	return min((power+1)<<subBits+int(us>>power)&(1<<subBits-1), Buckets-1)
}

// UpperOf is where a bucket ends.
func UpperOf(bucket int) time.Duration {
	if bucket < 1<<subBits {
		return time.Duration(bucket+1) * time.Microsecond
	}
	power, sub := bucket>>subBits-1, bucket&(1<<subBits-1)
	return time.Duration(1<<subBits+sub+1) << power * time.Microsecond
}

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	at := BucketOf(d)
	for len(h.Counts) <= at {
		h.Counts = append(h.Counts, 0)
	}
	h.Counts[at]++
}

// N is how many durations were counted.
func (h Histogram) N() int64 {
	n := int64(0)
	for _, count := range h.Counts {
		n += count
	}
	return n
}

// Quantile is a duration that a share q of the counted ones does not exceed; 0 if there are none.
func (h Histogram) Quantile(q float64) time.Duration {
	rank := max(int64(math.Ceil(q*float64(h.N()))), 1)
	for bucket, count := range h.Counts {
		if rank -= count; rank <= 0 {
			return UpperOf(bucket)
		}
	}
	return 0
}

// Plus is both together.
func (h Histogram) Plus(o Histogram) Histogram { return h.with(o, 1) }

// Minus is what h has more than an earlier state of it.
func (h Histogram) Minus(o Histogram) Histogram { return h.with(o, -1) }

func (h Histogram) with(o Histogram, sign int64) Histogram {
	counts := make([]int64, max(len(h.Counts), len(o.Counts)))
	copy(counts, h.Counts)
	for i, count := range o.Counts {
		counts[i] += sign * count
	}
	return Histogram{Counts: counts}
}
