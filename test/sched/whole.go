package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// wholeFigures are of jobs from submission to their end.
type wholeFigures struct {
	Jobs      int     `json:"jobs"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"`
}

// whole submits jobs of one trivial task and waits until all of them have succeeded.
func whole(ctx context.Context, jobs, clients int) (wholeFigures, error) {
	all, err := dial(min(clients, jobs))
	if err != nil {
		return wholeFigures{}, err
	}
	prefix := fmt.Sprintf("true-%d", time.Now().UnixMilli())
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
	if err := group.Wait(); err != nil {
		return wholeFigures{}, err
	}
	for i := range jobs {
		if err := succeeded(ctx, all[0], fmt.Sprintf("%s-%d", prefix, i)); err != nil {
			return wholeFigures{}, err
		}
	}
	took := time.Since(began)
	return wholeFigures{Jobs: jobs, Seconds: seconds(took), PerSecond: float64(int(float64(jobs)/took.Seconds()*10)) / 10}, nil
}

// succeeded waits for the end of a job.
func succeeded(ctx context.Context, c *client.Client, name string) error {
	for view, err := range c.Watch(ctx, name) {
		if err != nil {
			return err
		}
		if s := view.Job.State; s.Ended() && s != cluster.JobSucceeded {
			return fault.New(fault.Internal, "%s %s: %s", name, s, view.Job.Reason)
		}
	}
	return nil
}
