package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// pulse is how the beats of a fleet are answered.
type pulse struct {
	mu     sync.Mutex
	took   []time.Duration // from sending a beat to its answer
	gap    time.Duration   // the longest that a node was without an answer
	breaks int             // connections that ended
}

func (p *pulse) note(took time.Duration, last, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = append(p.took, took)
	if !last.IsZero() {
		p.gap = max(p.gap, now.Sub(last))
	}
}

// broke counts a connection that ended, and says whether it is one of the first: a thousand need no line each.
func (p *pulse) broke() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.breaks++
	return p.breaks <= 3
}

// reset begins anew.
func (p *pulse) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took, p.gap, p.breaks = p.took[:0], 0, 0
}

// beatFigures are of one process of nodes.
type beatFigures struct {
	Nodes       int     `json:"nodes"`
	JoinSeconds float64 `json:"join_seconds"`
	PerSecond   float64 `json:"beats_per_second"`
	P50         float64 `json:"answer_p50_ms"`
	P99         float64 `json:"answer_p99_ms"`
	Longest     float64 `json:"longest_without_answer_ms"`
	Breaks      int     `json:"connections_ended"`
}

// beats lets the nodes beat until ctx ends. At each signal it tells how they were answered since the one before.
func (b *bench) beats(ctx context.Context, tell <-chan os.Signal) (beatFigures, error) {
	clients, err := dial(1)
	if err != nil {
		return beatFigures{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running errgroup.Group
	defer func() { cancel(); _ = running.Wait() }()
	began := time.Now()
	fleet, err := join(ctx, clients[0], b.first, b.nodes, b.coordinators, func(string, time.Time) {})
	if err != nil {
		return beatFigures{}, err
	}
	running.Go(func() error { return fleet.run(ctx) })
	fleet.in.Wait()
	out := beatFigures{Nodes: b.nodes, JoinSeconds: seconds(time.Since(began))}
	note("%d nodes are connected after %.1f s", b.nodes, out.JoinSeconds)
	for since := time.Now(); ; since = time.Now() {
		fleet.pulse.reset()
		select {
		case <-ctx.Done():
			return fleet.pulse.figures(out, time.Since(since)), nil
		case <-tell:
			if err := json.NewEncoder(os.Stdout).Encode(fleet.pulse.figures(out, time.Since(since))); err != nil {
				return out, err
			}
		}
	}
}

// figures are those of a span of time.
func (p *pulse) figures(out beatFigures, span time.Duration) beatFigures {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.took)
	out.PerSecond = math.Round(float64(len(p.took)) / span.Seconds())
	out.P50, out.P99, out.Breaks = quantile(p.took, 0.5), quantile(p.took, 0.99), p.breaks
	out.Longest = math.Round(float64(p.gap) / float64(time.Millisecond))
	return out
}

// queuedFigures are of submissions that wait for room.
type queuedFigures struct {
	Jobs      int     `json:"jobs"`
	PerSecond float64 `json:"per_second"`
}

// waiting submits jobs that wait, if no node has room.
func waiting(ctx context.Context, jobs, clients int) (queuedFigures, error) {
	all, err := dial(clients)
	if err != nil {
		return queuedFigures{}, err
	}
	prefix := fmt.Sprintf("queued-%d", time.Now().UnixMilli())
	began := time.Now()
	var group errgroup.Group
	for worker, c := range all {
		group.Go(func() error {
			for i := worker; i < jobs; i += len(all) {
				if _, err := c.Submit(ctx, job(fmt.Sprintf("%s-%d", prefix, i), 1, 1, 0)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = group.Wait()
	return queuedFigures{Jobs: jobs, PerSecond: math.Round(float64(jobs) / time.Since(began).Seconds())}, err
}
