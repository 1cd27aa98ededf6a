// Package e2e tests what Clary promises on real processes. `make e2e` runs it.
package e2e

import (
	"strings"
	"sync"
	"testing"

	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
	"github.com/clary-ml/clary/test/testbed"
)

// machines is a cluster of real processes, with what these tests ask of it.
type machines struct{ *testbed.Machines }

// start begins a cluster, beside other tests'.
func start(t *testing.T, servers, agents int) *machines {
	t.Helper()
	beside(t)
	return &machines{testbed.Start(t, servers, agents)}
}

// none is a cluster to be, beside other tests'.
func none(t *testing.T) *machines {
	t.Helper()
	beside(t)
	return &machines{testbed.None(t)}
}

// engine begins a Docker, beside other tests'.
func engine(t *testing.T) *enginetest.Engine {
	t.Helper()
	beside(t)
	return enginetest.Open(t, "docker")
}

// ran are the tests of which it is known whether others run beside them.
var ran sync.Map

// beside has a test run while others do, from here on: most of its time it waits. What a cluster or an engine has is its own. It is
// called by whatever takes time first, so tests do that before anything else.
func beside(t *testing.T) {
	if _, known := ran.LoadOrStore(t, true); !known && !strings.Contains(t.Name(), "/") {
		t.Parallel()
	}
}

// alone has a test run while no other does: it says how long something took.
func alone(t *testing.T) { ran.Store(t, true) }
