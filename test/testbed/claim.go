package testbed

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// claims counts them, so that what a test had is not had again at once.
var claims atomic.Int32

// claim takes a number below a bound that no other test on this machine has, in whatever process it runs, of what there is one
// by each number: ranges of ports, bridges. Whoever has it releases it when nothing of that is left. What holds it is an abstract
// socket, of which there is one by a name in a network, as there is of ports and bridges, and none when its process is gone.
func claim(t *testing.T, what string, bound int) (number int, release func()) {
	t.Helper()
	first := os.Getpid() + int(claims.Add(1))
	for i := range bound {
		number = (first + i) % bound
		if holder, err := net.Listen("unix", fmt.Sprintf("@clary-testbed/%s/%d", what, number)); err == nil {
			return number, func() { _ = holder.Close() }
		}
	}
	t.Fatalf("other tests have all %d %s", bound, what)
	return 0, nil
}

// claim is that of a cluster, until it is cleaned up.
func (m *Machines) claim(what string, bound int) int {
	m.T.Helper()
	number, release := claim(m.T, what, bound)
	m.releases = append(m.releases, release)
	return number
}

// Ranges of ports are above those that FreeAddress hands out, and below those of whoever connects.
const (
	firstRange = 20_100
	perRange   = 50
	allRanges  = 240
)

// Range claims ports for the cluster, and returns the first of fifty.
func (m *Machines) Range() int {
	m.T.Helper()
	first := firstRange + perRange*m.claim("ranges of ports", allRanges)
	m.ranges = append(m.ranges, first)
	return first
}
