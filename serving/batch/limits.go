package batch

import (
	"slices"

	"github.com/clary-ml/clary/internal/fault"
)

// Strategy says how many records a request holds.
type Strategy string

// The strategies.
const (
	Single Strategy = "single" // one
	Multi  Strategy = "multi"  // as many as fit into the payload
)

// Limits bound what is sent. What is zero is left to whoever is asked next.
type Limits struct {
	Concurrent int      `json:"concurrent,omitempty"` // requests at the same time
	Strategy   Strategy `json:"strategy,omitempty"`
	Payload    int64    `json:"payload,omitempty"` // most bytes of a request
}

// Defaults hold where neither the request nor the server says anything: SageMaker's.
func Defaults() Limits { return Limits{Concurrent: 1, Strategy: Multi, Payload: 6 << 20} }

// Bounds on limits.
const (
	MaxConcurrent = 1024
	MaxPayload    = 1 << 30
)

// Else fills what is zero from other limits.
func (l Limits) Else(other Limits) Limits {
	if l.Concurrent == 0 {
		l.Concurrent = other.Concurrent
	}
	if l.Strategy == "" {
		l.Strategy = other.Strategy
	}
	if l.Payload == 0 {
		l.Payload = other.Payload
	}
	return l
}

// Validate reports limits that cannot be kept; zeros can.
func (l Limits) Validate() error {
	switch {
	case l.Concurrent < 0 || l.Concurrent > MaxConcurrent:
		return fault.New(fault.Invalid, "max_concurrent: %d is out of range: from 1 to %d", l.Concurrent, MaxConcurrent)
	case !slices.Contains([]Strategy{"", Single, Multi}, l.Strategy):
		return fault.New(fault.Invalid, "strategy: %q is unknown: single or multi", l.Strategy)
	case l.Payload < 0 || l.Payload > MaxPayload:
		return fault.New(fault.Invalid, "max_payload: %d bytes is out of range: up to %d", l.Payload, int64(MaxPayload))
	}
	return nil
}
