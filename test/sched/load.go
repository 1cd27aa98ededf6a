package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/cluster"
)

type bench struct {
	first, nodes, tasks, gang, clients, rate int
	length                                   time.Duration
	coordinators                             []string
}

// figures are what is printed: rates a second, times in milliseconds.
type figures struct {
	Nodes       int     `json:"nodes"`
	Gang        int     `json:"gang"`
	JoinSeconds float64 `json:"join_seconds"`
	Submitted   float64 `json:"submitted_per_second"` // while the fleet was full
	Tasks       int     `json:"tasks"`
	Placed      float64 `json:"placed_per_second"` // until the node of the last has heard of it
	EndSeconds  float64 `json:"end_seconds"`       // until the last job is seen to have ended
	Rate        float64 `json:"steady_per_second,omitempty"`
	P50         float64 `json:"steady_p50_ms,omitempty"` // from before the submission until its node has heard of it
	P99         float64 `json:"steady_p99_ms,omitempty"`
}

// heard collects when nodes were told of tasks.
type heard struct {
	mu     sync.Mutex
	first  map[string]time.Time // by job
	count  atomic.Int64
	last   time.Time
	target int64
	done   chan struct{}
}

func (h *heard) told(job string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.first[job]; !known {
		h.first[job] = at
	}
	h.last = at
	if h.count.Add(1) == h.target {
		close(h.done)
	}
}

// expect begins anew and returns what is closed once so many tasks were told of.
func (h *heard) expect(tasks int) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.first, h.target, h.done = map[string]time.Time{}, int64(tasks), make(chan struct{})
	h.count.Store(0)
	return h.done
}

// patience is how long anything is waited for.
const patience = 5 * time.Minute

func await(ctx context.Context, done <-chan struct{}, what string) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience):
		return errors.New("waited in vain for " + what)
	}
}

func (b *bench) run(ctx context.Context) (figures, error) {
	out := figures{Nodes: b.nodes, Gang: b.gang, Tasks: b.tasks / b.gang * b.gang}
	clients, err := dial(b.clients)
	if err != nil {
		return out, err
	}
	seen := &heard{}
	ctx, cancel := context.WithCancel(ctx)
	var running errgroup.Group
	defer func() { cancel(); _ = running.Wait() }()
	began := time.Now()
	fleet, err := join(ctx, clients[0], b.first, b.nodes, b.coordinators, seen.told)
	if err != nil {
		return out, err
	}
	running.Go(func() error { return fleet.run(ctx) })
	fleet.in.Wait()
	if err := b.occupy(ctx, clients[0], seen); err != nil {
		return out, err
	}
	out.JoinSeconds = seconds(time.Since(began))
	note("%d nodes have joined and are full after %.1f s", b.nodes, out.JoinSeconds)
	if err := b.backlog(ctx, clients, fleet, seen, &out); err != nil {
		return out, err
	}
	if b.rate > 0 {
		err = b.steady(ctx, clients, seen, &out)
	}
	return out, err
}

func note(format string, args ...any) { fmt.Fprintf(os.Stderr, "sched: "+format+"\n", args...) }

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*100) / 100 }

func dial(count int) ([]*client.Client, error) {
	path, err := config.Path(os.Getenv)
	if err != nil {
		return nil, err
	}
	file, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	to, err := file.Resolve("", os.Getenv)
	if err != nil {
		return nil, err
	}
	clients := make([]*client.Client, count)
	for i := range clients {
		if clients[i], err = client.Dial(to); err != nil {
			return nil, err
		}
	}
	return clients, nil
}

// occupy fills every node with one task, so that what comes then waits.
func (b *bench) occupy(ctx context.Context, c *client.Client, seen *heard) error {
	full := seen.expect(b.nodes)
	const together = 32
	for left, i := b.nodes, 0; left > 0; left, i = left-together, i+1 {
		if _, err := c.Submit(ctx, job(fmt.Sprintf("full-%d", i), min(left, together), nodeCores, 0)); err != nil {
			return err
		}
	}
	return await(ctx, full, "all nodes to be full")
}

// job is a gang of equal tasks that take so many cores and GPUs each.
func job(name string, tasks, cores, gpus int) cluster.Job {
	spec, _ := json.Marshal(map[string]any{
		"program":   map[string]any{"command": []string{"true"}},
		"instances": tasks, "resources": map[string]any{"cores": cores, "memory": "16MiB", "gpus": gpus},
	})
	return cluster.Job{Name: name, Kind: cluster.KindTraining, Spec: spec}
}

// backlog lets the tasks come while the fleet is full, then frees all of it at once.
func (b *bench) backlog(ctx context.Context, clients []*client.Client, fleet *fleet, seen *heard, out *figures) error {
	placed := seen.expect(out.Tasks)
	jobs := b.tasks / b.gang
	began := time.Now()
	var next atomic.Int64
	var group errgroup.Group
	for _, c := range clients {
		group.Go(func() error {
			for i := int(next.Add(1)) - 1; i < jobs; i = int(next.Add(1)) - 1 {
				if _, err := c.Submit(ctx, job(fmt.Sprintf("wait-%06d", i), b.gang, 1, 0)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	out.Submitted = math.Round(float64(jobs) / time.Since(began).Seconds())
	note("%d jobs of %d wait, %.0f submitted a second", jobs, b.gang, out.Submitted)
	began = time.Now()
	fleet.finish()
	if err := await(ctx, placed, "all tasks to be placed"); err != nil {
		return err
	}
	out.Placed = math.Round(float64(out.Tasks) / seen.last.Sub(began).Seconds())
	note("%d tasks placed, %.0f a second", out.Tasks, out.Placed)
	err := b.ended(ctx, clients[0])
	out.EndSeconds = seconds(time.Since(began))
	return err
}

// ended waits until no job goes on.
func (b *bench) ended(ctx context.Context, c *client.Client) error {
	for {
		left, _, err := c.Jobs(ctx, client.Filter{States: []cluster.JobState{cluster.JobQueued, cluster.JobRunning, cluster.JobPublishing}, Limit: 1, Stale: true})
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// steady lets jobs come at a constant rate, whether or not those before were placed.
func (b *bench) steady(ctx context.Context, clients []*client.Client, seen *heard, out *figures) error {
	jobs := int(b.length.Seconds() * float64(b.rate))
	placed := seen.expect(jobs * b.gang)
	submitted := make([]time.Time, jobs)
	began := time.Now()
	var next atomic.Int64
	var group errgroup.Group
	for _, c := range clients {
		group.Go(func() error {
			for i := int(next.Add(1)) - 1; i < jobs; i = int(next.Add(1)) - 1 {
				due := began.Add(time.Duration(i) * time.Second / time.Duration(b.rate))
				time.Sleep(time.Until(due))
				submitted[i] = due // not when a client was free: what waits for one waits too
				if _, err := c.Submit(ctx, job(fmt.Sprintf("steady-%06d", i), b.gang, 1, 0)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := errors.Join(group.Wait(), await(ctx, placed, "all that came steadily to be placed")); err != nil {
		return err
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	var times []time.Duration
	for name, at := range seen.first {
		var i int
		if _, err := fmt.Sscanf(strings.TrimPrefix(name, "steady-"), "%d", &i); err == nil {
			times = append(times, at.Sub(submitted[i]))
		}
	}
	slices.Sort(times)
	out.Rate = math.Round(float64(jobs*b.gang) / seen.last.Sub(began).Seconds())
	out.P50, out.P99 = quantile(times, 0.5), quantile(times, 0.99)
	return nil
}

// quantile of sorted times, in milliseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := max(int(math.Ceil(q*float64(len(sorted))))-1, 0)
	return math.Round(float64(sorted[at])/float64(time.Millisecond)*10) / 10
}
