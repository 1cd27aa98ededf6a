package testbed

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
)

// claims counts them, so that what a test had is not had again at once.
var claims atomic.Int32

// claim takes a number below a bound that no other test on this machine has, in whatever process it runs, of what there is one
// by each number: ports, ranges of them, bridges. Whoever has it releases it when nothing of that is left. What holds it is an abstract
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

// Single ports are below ranges of them, and both are below those that the kernel gives to whoever connects.
const (
	firstFree = 10_000
	allFree   = 10_000

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

// free is an address with a port that is the cluster's until it is cleaned up.
func (m *Machines) free() string {
	m.T.Helper()
	address, release := freeAddress(m.T, m.host)
	m.releases = append(m.releases, release)
	return address
}

// FreeAddress is a loopback address with a port that is the test's until it ends.
func FreeAddress(t *testing.T) string {
	t.Helper()
	address, release := freeAddress(t, "127.0.0.1")
	t.Cleanup(release)
	return address
}

// freeAddress claims a port that nobody listens on. It is claimed since whoever asked for it listens on it only some time later.
func freeAddress(t *testing.T, host string) (address string, release func()) {
	t.Helper()
	for range allFree {
		number, release := claim(t, "ports of "+host, allFree)
		address := net.JoinHostPort(host, strconv.Itoa(firstFree+number))
		if listener, err := net.Listen("tcp", address); err == nil {
			_ = listener.Close()
			return address, release
		}
		release()
	}
	t.Fatalf("no port is free on %s", host)
	return "", nil
}
