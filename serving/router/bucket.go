package router

import (
	"sync/atomic"
	"time"
)

// bucket is a rate: the generic cell rate algorithm, one number that says when the next request is
// due (ITU-T I.371). Its zero value is full.
type bucket struct {
	due atomic.Int64
}

// take lets a request through at so many a second, of which burst may come at once. If it does not,
// it says how long to wait.
func (b *bucket) take(now time.Duration, rate float64, burst int) (time.Duration, bool) {
	each := int64(float64(time.Second) / rate)
	for {
		due := b.due.Load()
		next := max(due, int64(now)) + each
		if over := next - int64(now) - each*int64(max(burst, 1)); over > 0 {
			return time.Duration(over), false
		}
		if b.due.CompareAndSwap(due, next) {
			return 0, true
		}
	}
}
