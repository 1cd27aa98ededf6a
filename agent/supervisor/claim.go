package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/cluster"
)

// leasePause is how often it is looked whether the node has a lease.
const leasePause = 100 * time.Millisecond

// claim waits until no other process of this node has the task's devices and ports, and
// takes them. The ledger gives nothing twice; but a task that it has written off, since
// the node was cut off for longer than its lease, may still be ending here. Ports that
// programs have of their own the ledger does not know: here they are had by one at a time.
func (t *task) claim(ctx context.Context, assignment ledger.Assignment) error {
	for {
		t.s.mu.Lock()
		vacant, changed := t.take(assignment), t.s.changed
		t.s.mu.Unlock()
		if vacant {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take claims all or nothing. It is called with s.mu held.
func (t *task) take(assignment ledger.Assignment) bool {
	names := exclusive(assignment)
	for _, name := range names {
		if holder := t.s.claims[name]; holder != nil && holder != t {
			return false
		}
	}
	for _, name := range names {
		t.s.claims[name] = t
	}
	return true
}

// release lets others have what a task held whose process has ended, or never began.
func (t *task) release() {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	for name, holder := range t.s.claims {
		if holder == t {
			delete(t.s.claims, name)
		}
	}
	t.s.bump()
}

// awaitLease holds an exclusive task back while the node may count as lost.
func (t *task) awaitLease(ctx context.Context, assignment ledger.Assignment) error {
	for assignment.Program.Exclusive && t.s.config.Lease() == 0 {
		select {
		case <-time.After(leasePause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// exclusive names what only one process can have.
func exclusive(assignment ledger.Assignment) []string {
	var names []string
	for _, device := range assignment.Task.Allocation.Resources.Devices {
		names = append(names, "device "+device)
	}
	for _, share := range assignment.Task.Allocation.Resources.Shares {
		if share.Profile != "" { // a share is for several
			names = append(names, fmt.Sprintf("slot %d of %s", share.Start, share.UUID))
		}
	}
	for _, port := range portsOf(assignment) {
		names = append(names, "port "+strconv.Itoa(int(port)))
	}
	return names
}

// portsOf are those that it was given, and the one that it takes whatever it is given: of the node's, so
// none of a container that has an address of its own.
func portsOf(assignment ledger.Assignment) []int32 {
	ports := assignment.Task.Allocation.Resources.Ports
	if own := assignment.Program.Port; own > 0 && assignment.Program.Network != cluster.NetworkBridge && !slices.Contains(ports, own) {
		ports = append(slices.Clone(ports), own)
	}
	return ports
}
