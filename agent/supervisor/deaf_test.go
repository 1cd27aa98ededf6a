package supervisor_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
)

// deaf is a driver that cannot take a wish to end at first, as when the disk is full.
type deaf struct {
	runtime.Driver
	asked atomic.Int32
}

func (d *deaf) Stop(ctx context.Context, id string, grace time.Duration) error {
	if d.asked.Add(1) <= 2 {
		return errors.New("no space left on device")
	}
	return d.Driver.Stop(ctx, id, grace)
}

func TestATaskThatCouldNotBeToldToEndIsToldAgain(t *testing.T) {
	var driver *deaf
	b := newBench(t, func(c *supervisor.Config) {
		driver = &deaf{Driver: c.Driver}
		c.Driver = driver
	})
	task := script("sleep 600")
	b.run(task)
	b.until("it runs", func(held map[string]cluster.TaskStatus) bool { return held[worker].State == cluster.TaskRunning })
	task.Stop = true
	if err := b.agent.Desired(true, []ledger.Assignment{task}, nil); err != nil {
		t.Fatal(err)
	}
	if status := b.ended(worker); status.State != cluster.TaskStopped || driver.asked.Load() != 3 {
		t.Errorf("it ended as %+v, told %d times", status, driver.asked.Load())
	}
}
