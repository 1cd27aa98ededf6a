// Package steady is a clock for decisions that compare now with an instant that the same clock told before: how long a job
// has run, whether a pause is over, how old something is. A machine's wall clock may be set while it runs, by NTP or by hand:
// then all that runs would seem to have run for an hour. This clock goes on as time passes and moves towards the
// wall clock slowly, forward at all times.
package steady

import (
	"sync"
	"time"
)

const (
	// share of the time that has passed by which the clock may go faster or slower: an hour is made good in twenty.
	share = 20
	// longest is the time between two readings of which a share is made good at most.
	longest = time.Minute
)

// Source tells a wall clock's time, and how long it is since some fixed instant, whatever the wall clock was set to.
type Source func() (wall time.Time, passed time.Duration)

// Clock is a steady clock. Any goroutine may read it.
type Clock struct {
	source Source

	mu    sync.Mutex
	shown time.Time     // when it was read last
	at    time.Duration // the source's, then
}

// New is a clock that begins with this machine's time.
func New() *Clock {
	began := time.Now()
	return From(func() (time.Time, time.Duration) {
		now := time.Now()
		return now, now.Sub(began)
	})
}

// From is a clock that begins with a source's time.
func From(source Source) *Clock {
	wall, passed := source()
	return &Clock{source: source, shown: wall.Round(0), at: passed}
}

// Now is the clock's time. It has no monotonic reading.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, passed := c.source()
	step := passed - c.at
	most := min(step, longest) / share
	shown := c.shown.Add(step)
	off := wall.Round(0).Sub(shown)
	c.shown, c.at = shown.Add(min(max(off, -most), most)), passed
	return c.shown
}
