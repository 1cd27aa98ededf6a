package rpc

import (
	"context"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// seatPatience is how long a call waits for a seat before it is refused.
const seatPatience = 10 * time.Second

// seats bound how many calls of a kind are worked on at once, where each holds memory for as long as its caller likes to take.
type seats struct {
	taken chan struct{}
	of    string // what is done, for who is refused: "object is uploaded"
}

func newSeats(most int, of string) seats { return seats{make(chan struct{}, most), of} }

// take waits for a seat, or refuses. What it returns gives the seat back.
func (s seats) take(ctx context.Context) (rise func(), err error) {
	rise = func() { <-s.taken }
	select {
	case s.taken <- struct{}{}:
		return rise, nil
	default:
	}
	patience := time.NewTimer(seatPatience)
	defer patience.Stop()
	select {
	case s.taken <- struct{}{}:
		return rise, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-patience.C:
		return nil, fault.New(fault.Exhausted, "%d %s at this coordinator, the most that it does at once, and none ended within %s: ask again, or another coordinator", cap(s.taken), s.of, seatPatience)
	}
}
