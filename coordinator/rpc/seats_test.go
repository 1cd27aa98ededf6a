package rpc

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

func TestWhoFindsNoSeatWaitsForOneAndIsRefusedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 3
		s := newSeats(most, "things are done")
		var rise []func()
		for range most {
			up, err := s.take(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rise = append(rise, up)
		}
		began := time.Now()
		if _, err := s.take(t.Context()); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "3 things are done") || time.Since(began) != seatPatience {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		go func() {
			time.Sleep(time.Second)
			rise[0]()
		}()
		began = time.Now()
		if _, err := s.take(t.Context()); err != nil || time.Since(began) != time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.take(ctx); err == nil || fault.Is(err, fault.Exhausted) {
			t.Errorf("whoever goes away: %v", err)
		}
	})
}
