// Package e2e tests what Clary promises on real processes. `make e2e` runs it.
package e2e

import (
	"testing"

	"github.com/clary-ml/clary/test/testbed"
)

// machines is a cluster of real processes, with what these tests ask of it.
type machines struct{ *testbed.Machines }

func start(t *testing.T, servers, agents int) *machines {
	t.Helper()
	return &machines{testbed.Start(t, servers, agents)}
}

func none(t *testing.T) *machines {
	t.Helper()
	return &machines{testbed.None(t)}
}
