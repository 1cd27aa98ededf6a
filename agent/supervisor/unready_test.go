package supervisor_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/smalldisk"
)

// away is a driver that cannot be reached for a few calls, as when a container engine is
// started again.
type away struct {
	runtime.Driver
	mu               sync.Mutex
	starts, removals int
	behind           bool // it does not know yet that the task has ended
}

func (a *away) Start(ctx context.Context, spec runtime.Spec) (time.Time, error) {
	a.mu.Lock()
	a.starts++
	first := a.starts == 1
	a.mu.Unlock()
	if first {
		return time.Time{}, fault.New(fault.Unready, "the engine does not answer")
	}
	return a.Driver.Start(ctx, spec)
}

func (a *away) Stop(ctx context.Context, id string, grace time.Duration) error {
	a.mu.Lock()
	a.behind = false
	a.mu.Unlock()
	return a.Driver.Stop(ctx, id, grace)
}

func (a *away) Remove(ctx context.Context, id string) error {
	a.mu.Lock()
	a.removals++
	first, behind := a.removals == 1, a.behind
	a.mu.Unlock()
	switch {
	case first:
		return fault.New(fault.Unready, "the engine does not answer")
	case behind:
		return fault.New(fault.Conflict, "the task still runs")
	}
	return a.Driver.Remove(ctx, id)
}

func TestADriverThatCannotBeReachedForAWhileCostsNoTaskAndLeavesNothing(t *testing.T) {
	var driver *away
	b := newBench(t, func(c *supervisor.Config) {
		driver = &away{Driver: c.Driver, behind: true}
		c.Driver = driver
	})
	b.run(script("exit 3"))
	if status := b.ended(worker); status.State != cluster.TaskFailed || status.ExitCode != 3 {
		t.Errorf("it ended as %+v", status)
	}
	if err := b.agent.Desired(true, nil, nil); err != nil {
		t.Fatal(err)
	}
	b.until("it is forgotten", func(held map[string]cluster.TaskStatus) bool { return len(held) == 0 })
	driver.mu.Lock()
	defer driver.mu.Unlock()
	if driver.starts != 2 || driver.removals < 3 {
		t.Errorf("it was started %d times and removed %d times", driver.starts, driver.removals)
	}
}

// removals is a driver that tells of each removal.
type removals struct {
	runtime.Driver
	each chan struct{}
}

func (r *removals) Remove(ctx context.Context, id string) error {
	r.each <- struct{}{}
	return r.Driver.Remove(ctx, id)
}

// A folder in which something is mounted cannot be deleted, by whomever: it goes when that has gone.
func TestATaskWhoseFolderIsInUseIsForgottenLater(t *testing.T) {
	driver := &removals{each: make(chan struct{}, 100)}
	b := newBench(t, func(c *supervisor.Config) { driver.Driver, c.Driver = c.Driver, driver })
	b.run(script("exit 0"))
	b.ended(worker)
	mounted := filepath.Join(b.dir, "tasks", "digits~main~worker-0.1", "mounted")
	if err := os.Mkdir(mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	smalldisk.On(t, mounted, 1<<20)
	if err := b.agent.Desired(true, nil, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case <-driver.each:
		case <-time.After(patience):
			t.Fatal("it is not tried again")
		}
	}
	if err := syscall.Unmount(mounted, 0); err != nil {
		t.Fatal(err)
	}
	b.until("it is forgotten", func(held map[string]cluster.TaskStatus) bool { return len(held) == 0 })
}
