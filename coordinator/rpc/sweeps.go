package rpc

import (
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// sweeps serves tuning jobs from inside.
type sweeps struct {
	claryv1.UnimplementedSweepsServer
}
