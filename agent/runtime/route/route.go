// Package route is a driver made of two: tasks with an image go to the one for containers,
// all others to the one for processes.
package route

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// Driver implements runtime.Driver and what else one of its two does. A task's own driver is
// known from its start, or from Recover.
type Driver struct {
	processes, containers runtime.Driver

	mu        sync.Mutex
	contained map[string]bool // by task: whether it is a container
}

// New makes one driver of two.
func New(processes, containers runtime.Driver) *Driver {
	return &Driver{processes: processes, containers: containers, contained: map[string]bool{}}
}

// of is the driver that has a task. One that nobody has is for both to deny.
func (d *Driver) of(id string) runtime.Driver {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.contained[id] {
		return d.containers
	}
	return d.processes
}

func (d *Driver) remember(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.contained[id] = true
}

// Start starts the task with the driver for it.
func (d *Driver) Start(ctx context.Context, spec runtime.Spec) (time.Time, error) {
	if spec.Image == "" {
		return d.processes.Start(ctx, spec)
	}
	d.remember(spec.ID) // also of what does not start something may be left
	return d.containers.Start(ctx, spec)
}

// Fetch brings an image for containers.
func (d *Driver) Fetch(ctx context.Context, image string) error {
	if fetcher, ok := d.containers.(runtime.Fetcher); ok {
		return fetcher.Fetch(ctx, image)
	}
	return nil
}

// Recover asks both.
func (d *Driver) Recover(ctx context.Context) ([]runtime.Found, error) {
	processes, err := d.processes.Recover(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := d.containers.Recover(ctx)
	for _, found := range containers {
		d.remember(found.ID)
	}
	return append(processes, containers...), err
}

// Wait returns how the task ended.
func (d *Driver) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	return d.of(id).Wait(ctx, id)
}

// Stop asks the task to end.
func (d *Driver) Stop(ctx context.Context, id string, grace time.Duration) error {
	return d.of(id).Stop(ctx, id, grace)
}

// Logs gives what the task wrote.
func (d *Driver) Logs(ctx context.Context, id string, query journal.Query, sink journal.Sink) error {
	return d.of(id).Logs(ctx, id, query, sink)
}

// DropLog lets go of an ended task's log. A container's stays with its engine until it is removed.
func (d *Driver) DropLog(id string) error {
	if keeper, ok := d.of(id).(runtime.LogKeeper); ok {
		return keeper.DropLog(id)
	}
	return nil
}

// Remove has its driver forget the task.
func (d *Driver) Remove(ctx context.Context, id string) error {
	if err := d.of(id).Remove(ctx, id); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.contained, id)
	return nil
}

// SetLease is for processes: containers cannot be exclusive.
func (d *Driver) SetLease(id string, left time.Duration) error {
	if leaser, ok := d.of(id).(runtime.Leaser); ok {
		return leaser.SetLease(id, left)
	}
	return nil
}

// Usage tells what the task uses.
func (d *Driver) Usage(id string) (runtime.Usage, error) {
	if meter, ok := d.of(id).(runtime.Meter); ok {
		return meter.Usage(id)
	}
	return runtime.Usage{}, fault.New(fault.Invalid, "task %s: its driver measures nothing", id)
}

// Occupies tells what of the task takes room on the disk.
func (d *Driver) Occupies(ctx context.Context, id string) (folders []string, pids []int, err error) {
	if occupant, ok := d.of(id).(runtime.Occupant); ok {
		return occupant.Occupies(ctx, id)
	}
	return nil, nil, nil
}

// CanIsolate says whether processes can have a view of their own; containers always have.
func (d *Driver) CanIsolate() error {
	if isolator, ok := d.processes.(runtime.Isolator); ok {
		return isolator.CanIsolate()
	}
	return errors.New("this node's processes cannot have a view of their own")
}

// Exec runs another program beside the task.
func (d *Driver) Exec(ctx context.Context, id string, command runtime.Command, streams runtime.Streams) (int, error) {
	if execer, ok := d.of(id).(runtime.Execer); ok {
		return execer.Exec(ctx, id, command, streams)
	}
	return 0, fault.New(fault.Invalid, "task %s: its driver runs no programs beside it", id)
}

// Dial connects to a port on which the task listens.
func (d *Driver) Dial(ctx context.Context, id string, port int) (net.Conn, error) {
	if dialer, ok := d.of(id).(runtime.Dialer); ok {
		return dialer.Dial(ctx, id, port)
	}
	return nil, fault.New(fault.Invalid, "task %s: its driver reaches no ports", id)
}
