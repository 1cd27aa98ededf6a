package container

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/internal/fault"
)

// gauge measures one container. Its control group is read where it is found, which costs no
// call of the engine and shows what an engine may not tell; the group is gone as soon as the
// container has ended, so what was read last is kept.
type gauge struct {
	mu    sync.Mutex
	group cgroup.Group
	oom   *cgroup.OOM // nil where it cannot be watched
	last  runtime.Usage
}

// find looks for the group of a running container, unless it is known.
func (g *gauge) find(pid int, id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if pid <= 0 || id == "" || !g.group.Empty() {
		return
	}
	g.group = cgroup.Of(pid, id)
	if watch, err := g.group.WatchOOM(); err == nil {
		g.oom = watch
	}
}

// read tells what the group uses; false if there is none.
func (g *gauge) read() (runtime.Usage, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.group.Empty() {
		return runtime.Usage{}, false
	}
	now := g.group.Usage()
	if !g.group.Gone() { // else some of it was read, and some was not
		g.keep(runtime.Usage{CPU: time.Duration(now.CPUNanos), Memory: now.Memory, PeakMemory: now.PeakMemory, Refused: now.Refused})
	}
	return g.last, true
}

// keep remembers a reading. Not every kernel tells a peak. With g.mu held.
func (g *gauge) keep(u runtime.Usage) {
	u.PeakMemory = max(u.PeakMemory, u.Memory, g.last.PeakMemory)
	u.Refused = max(u.Refused, g.last.Refused)
	g.last = u
}

// tell puts what was measured into the exit of a container that has ended.
func (g *gauge) tell(exit *runtime.Exit) {
	g.mu.Lock()
	defer g.mu.Unlock()
	failed := exit.Code != 0 || exit.Signal != 0
	exit.OutOfMemory = failed && (exit.OutOfMemory || g.oom != nil && g.oom.Killed())
	exit.Usage = g.last
}

// used is what was read last.
func (g *gauge) used() runtime.Usage {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// close ends the watch.
func (g *gauge) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.oom != nil {
		_ = g.oom.Close() // nobody asks it any more
		g.oom = nil
	}
}

// processes lists those in the container's group, none if it is not known.
func (g *gauge) processes() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.group.Pids()
}

// Occupies tells the container's processes, and the folder of what it writes into its own
// root, where the engine says which that is.
func (d *Driver) Occupies(ctx context.Context, id string) (folders []string, pids []int, err error) {
	h, err := d.find(id)
	if err != nil || h.ended() {
		return nil, nil, err
	}
	answer, err := d.engine.ContainerInspect(ctx, h.name, moby.ContainerInspectOptions{})
	if err != nil {
		return nil, nil, fault.New(fault.Unready, "ask where task %s writes: %w", id, err)
	}
	if layers := answer.Container.GraphDriver; layers != nil && layers.Data["UpperDir"] != "" {
		folders = []string{layers.Data["UpperDir"]}
	}
	return folders, h.gauge.processes(), nil
}

// Usage tells what a task uses, and of one that has ended what was read last.
func (d *Driver) Usage(id string) (runtime.Usage, error) {
	h, err := d.find(id)
	if err != nil {
		return runtime.Usage{}, err
	}
	if h.ended() {
		return h.exit.Usage, nil
	}
	if now, ok := h.gauge.read(); ok {
		return now, nil
	}
	ctx, cancel := context.WithTimeout(d.ctx, endPatience)
	defer cancel()
	now, err := d.stats(ctx, h.name)
	if err != nil {
		return runtime.Usage{}, fault.New(fault.Unready, "ask what task %s uses: %w", id, err)
	}
	h.gauge.mu.Lock()
	defer h.gauge.mu.Unlock()
	h.gauge.keep(now)
	return h.gauge.last, nil
}

// stats asks the engine once: where it runs on another machine, or its control groups are
// not to be seen from here.
func (d *Driver) stats(ctx context.Context, name string) (runtime.Usage, error) {
	answer, err := d.engine.ContainerStats(ctx, name, moby.ContainerStatsOptions{})
	if err != nil {
		return runtime.Usage{}, err
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	var told container.StatsResponse
	if err := json.NewDecoder(answer.Body).Decode(&told); err != nil {
		return runtime.Usage{}, err
	}
	return runtime.Usage{
		CPU:    time.Duration(told.CPUStats.CPUUsage.TotalUsage),
		Memory: int64(told.MemoryStats.Usage), PeakMemory: int64(told.MemoryStats.MaxUsage),
	}, nil
}
