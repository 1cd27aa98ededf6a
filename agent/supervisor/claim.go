package supervisor

import (
	"context"
	"strconv"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
)

// leasePause is how often it is looked whether the node has a lease.
const leasePause = 100 * time.Millisecond

// claim waits until no other process of this node has the task's devices and ports, and
// takes them. The ledger gives nothing twice; but a task that it has written off, since
// the node was cut off for longer than its lease, may still be ending here.
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
	resources := assignment.Task.Allocation.Resources
	var names []string
	for _, device := range resources.Devices {
		names = append(names, "device "+device)
	}
	for _, port := range resources.Ports {
		names = append(names, "port "+strconv.Itoa(int(port)))
	}
	return names
}
