package tuner

import (
	"fmt"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/space"
)

// Sampler proposes the next configuration to try.
//
// Suggest is a function of the history: it answers with a configuration for trial number
// h.Len() that is Fresh, or with ErrExhausted. A sampler may keep what it has worked out
// for the history it was asked about last, as long as a new sampler that is asked about the
// same history answers the same. So it keeps no more than a fold over h.Ended() or h.Event, in that
// order, and what depends on the pending trials is worked out in the call. A restart is a
// new sampler and the restored history.
type Sampler interface {
	Suggest(h *History) (space.Config, error)
}

// Maker makes a sampler for a problem, or says why it does not suit (fault.Invalid).
type Maker func(Problem) (Sampler, error)

// Ask begins the next trial: the first of the problem's initial configurations that was
// not tried, then what the sampler suggests. It returns the trial's number. Several asks in a row are
// the same as one ask for several.
func Ask(s Sampler, h *History) (int, error) {
	for _, c := range h.problem.Initial {
		if !h.Seen(c) {
			return h.Add(c)
		}
	}
	c, err := s.Suggest(h)
	if err != nil {
		return 0, err
	}
	if slot, found := h.find(c); found {
		return 0, fault.New(fault.Internal, "the sampler suggests trial %d again", h.seen[slot])
	}
	number, err := h.Add(c)
	if err != nil {
		return 0, fmt.Errorf("the sampler's suggestion: %w", err)
	}
	return number, nil
}
