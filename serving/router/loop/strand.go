package loop

import (
	"os"
	"sync/atomic"
	"time"
)

// signal is what a strand tells whoever runs it when it stops.
type signal uint8

const (
	parked signal = iota
	leave         // go on off the loop
	enter         // go on on it
)

const expired = -1 // a deadline that has passed

// Strand is the code of one connection. Its methods are for that code alone, but for Wake.
type Strand struct {
	loop     *Loop
	index    int // of the loop's strands
	ended    bool
	next     func() (signal, bool)
	yield    func(signal) bool
	off      atomic.Bool
	bell     chan struct{} // rung while off
	deadline atomic.Int64  // as Group.Now; 0 is none
	turn     int           // what it has done since others could
}

// Loop is the number of the strand's loop, from 0.
func (s *Strand) Loop() int { return s.loop.index }

// Park waits until a socket of the strand has news or somebody wakes it, also for no reason: look
// whether it came, and park again. After the deadline it returns os.ErrDeadlineExceeded, and when
// the group ends ErrStopped.
func (s *Strand) Park() error {
	if err := s.Err(); err != nil {
		return err
	}
	if s.off.Load() {
		<-s.bell
	} else {
		s.yield(parked)
	}
	s.turn = 0
	return s.Err()
}

const (
	longestTurn = 256 << 10 // bytes that a strand may move before it lets others
	callCost    = 4 << 10   // what a call counts for beside its bytes
)

// moved counts what the strand does without waiting, and lets the loop's others have their turn when
// that is much: a fast peer is always ready.
func (s *Strand) moved(n int) {
	if s.turn += n + callCost; s.turn < longestTurn {
		return
	}
	s.turn = 0
	if !s.off.Load() {
		s.Wake()
		s.yield(parked)
	}
}

// Err is why the strand may not wait any more.
func (s *Strand) Err() error {
	if s.deadline.Load() == expired {
		return os.ErrDeadlineExceeded
	}
	if s.loop.group.killed.Load() {
		return ErrStopped
	}
	return nil
}

// SetDeadline says until when (as Group.Now) the strand may wait, give or take 50 ms; 0 is for ever.
func (s *Strand) SetDeadline(at time.Duration) { s.deadline.Store(int64(at)) }

// Wake lets the strand look again. Anyone may call it.
func (s *Strand) Wake() { s.loop.post(message{strand: s}) }

// Leave goes on as an ordinary goroutine, which may block, until Return.
func (s *Strand) Leave() {
	if s.off.Load() {
		return
	}
	if s.bell == nil {
		s.bell = make(chan struct{}, 1)
	}
	s.off.Store(true)
	s.yield(leave)
}

// Return goes on on the loop.
func (s *Strand) Return() {
	if s.off.Load() {
		s.yield(enter)
	}
}

// Off reports whether the strand may block.
func (s *Strand) Off() bool { return s.off.Load() }

// runOff runs the strand between Leave and Return.
func (s *Strand) runOff() {
	if _, more := s.next(); more {
		s.loop.post(message{strand: s, what: toReturn})
	} else {
		s.loop.post(message{strand: s, what: toEnd})
	}
}
