//go:build !cgo

// Package nvml finds NVIDIA GPUs; this build cannot, since NVML needs cgo.
package nvml

import (
	"context"
	"errors"
	"fmt"

	"github.com/clary-ml/clary/cluster"
)

// ErrNone says that no GPU can be found.
var ErrNone = errors.New("no NVIDIA GPUs on this node")

// Source answers nothing.
type Source struct{}

// Open always fails.
func Open() (*Source, error) {
	return nil, fmt.Errorf("%w: this clary was built without cgo", ErrNone)
}

// Close does nothing.
func (*Source) Close() error { return nil }

// Devices returns nothing.
func (*Source) Devices(context.Context) ([]cluster.Device, error) { return nil, nil }
