// Package measure has the commands that measure: benchmarks of a cluster, simulations and replays of the scheduler.
package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/training"
)

func (a app) benchCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "bench",
		Short:   "Measure the cluster: how fast it takes jobs, starts them, and takes results of studies",
		Example: "  clary bench submit --clients 64 --seconds 10 -o json\n  clary bench start --count 20",
		Args:    shell.Takes(),
		RunE:    func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(a.benchSubmitCommand(), a.benchStartCommand(), a.benchBurstCommand(), a.benchLogsCommand(), a.benchStudyCommand())
	return command
}

// benchJSON is a measurement.
type benchJSON struct {
	PerSecond float64 `json:"per_second,omitempty"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Count     int     `json:"count"`
	Clients   int     `json:"clients,omitempty"`
	Seconds   float64 `json:"seconds"`
}

func (a app) showBench(r benchJSON, what string) error {
	return a.Print(r, func(out io.Writer) error {
		rate := ""
		if r.PerSecond > 0 {
			rate = fmt.Sprintf("%.0f a second, ", r.PerSecond)
		}
		_, err := fmt.Fprintf(out, "%d %s in %.1f s: %sp50 %.2f ms, p99 %.2f ms\n", r.Count, what, r.Seconds, rate, r.P50, r.P99)
		return err
	})
}

// quantile of sorted times, in milliseconds: the smallest that at least the share q of
// them does not exceed.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	index := max(int(math.Ceil(q*float64(len(sorted))))-1, 0)
	return math.Round(float64(sorted[index])/float64(time.Microsecond)) / 1000
}

// trivialJob does nothing, with next to no resources.
func trivialJob() (cluster.Job, error) { return smallJob("true") }

// smallJob runs a program, with next to no resources.
func smallJob(command ...string) (cluster.Job, error) {
	return submit.ProgramJob(training.Spec{
		Program:   &training.Program{Command: command},
		Resources: training.Resources{Cores: 10, Memory: 16 << 20},
	})
}

func (a app) benchSubmitCommand() *cobra.Command {
	var clients int
	var seconds float64
	var keep bool
	command := &cobra.Command{
		Use:   "submit",
		Short: "Durable submissions: held jobs that stay queued, deleted afterwards",
		Long: "Submit held jobs from many clients at once, each with a connection of its own, and measure how long\n" +
			"each submission takes until it is durable. The jobs stay queued, and are deleted afterwards.",
		Example: "  clary bench submit --clients 64 --seconds 10 -o json",
		Args:    shell.Takes(),
		RunE: func(command *cobra.Command, _ []string) error {
			if clients < 1 || clients > 4096 || seconds <= 0 || seconds > 3600 {
				return shell.Usage(command, "--clients takes 1 to 4096, --seconds up to 3600")
			}
			return a.benchSubmit(command.Context(), clients, time.Duration(seconds*float64(time.Second)), keep)
		},
	}
	command.Flags().IntVar(&clients, "clients", 64, "how many submit at the same time")
	command.Flags().Float64Var(&seconds, "seconds", 10, "for how long")
	command.Flags().BoolVar(&keep, "keep", false, "do not delete the jobs")
	return command
}

// ballast is memory that is never touched: it spares the garbage collector most of its
// runs, which on a small machine would be measured along with the cluster.
const ballast = 64 << 20

func (a app) benchSubmit(ctx context.Context, clients int, length time.Duration, keep bool) error {
	defer runtime.KeepAlive(make([]byte, ballast))
	prefix := submit.FreshName("bench")
	all, closeAll, err := a.connectMany(ctx, clients)
	defer closeAll()
	if err != nil {
		return err
	}
	times := make([][]time.Duration, clients)
	began := time.Now()
	group, submitting := errgroup.WithContext(ctx)
	for i, c := range all {
		group.Go(func() error { return submitMany(submitting, c, prefix, i, began.Add(length), &times[i]) })
	}
	err = group.Wait()
	took := time.Since(began)
	sorted := slices.Sorted(func(yield func(time.Duration) bool) {
		for _, own := range times {
			for _, d := range own {
				if !yield(d) {
					return
				}
			}
		}
	})
	if !keep {
		counts := make([]int, clients)
		for i := range counts {
			counts[i] = len(times[i]) + 1 // the one that failed may have been stored
		}
		err = errors.Join(err, a.benchClean(context.WithoutCancel(ctx), all, prefix, counts))
	}
	if err != nil {
		return err
	}
	return a.showBench(benchJSON{
		PerSecond: math.Round(float64(len(sorted))/took.Seconds()*10) / 10, P50: quantile(sorted, 0.5), P99: quantile(sorted, 0.99),
		Count: len(sorted), Clients: clients, Seconds: math.Round(took.Seconds()*100) / 100,
	}, "submissions")
}

// connectMany makes clients that have each a connection of their own, and one that closes all.
func (a app) connectMany(ctx context.Context, clients int) (all []*client.Client, closeAll func(), err error) {
	all = make([]*client.Client, clients)
	closeAll = func() {
		for _, c := range all {
			if c != nil {
				_ = c.Close()
			}
		}
	}
	var connecting errgroup.Group
	for i := range all {
		connecting.Go(func() error {
			c, err := a.Connect()
			if err != nil {
				return err
			}
			all[i] = c
			_, err = c.WhoAmI(ctx)
			return err
		})
	}
	return all, closeAll, connecting.Wait()
}

func benchName(prefix string, worker, index int) string {
	return fmt.Sprintf("%s-%d-%d", prefix, worker, index)
}

func submitMany(ctx context.Context, c *client.Client, prefix string, worker int, until time.Time, times *[]time.Duration) error {
	job, err := trivialJob()
	if err != nil {
		return err
	}
	job.Held = true
	for index := 0; time.Now().Before(until); index++ {
		job.Name = benchName(prefix, worker, index)
		job.RequestID = job.Name
		before := time.Now()
		if _, err := c.Submit(ctx, job); err != nil {
			return err
		}
		*times = append(*times, time.Since(before))
	}
	return nil
}

// benchClean cancels and deletes what was submitted.
func (a app) benchClean(ctx context.Context, all []*client.Client, prefix string, counts []int) error {
	group, ctx := errgroup.WithContext(ctx)
	for worker, c := range all {
		group.Go(func() error {
			for index := range counts[worker] {
				if err := vanish(ctx, c, benchName(prefix, worker, index)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// vanish cancels a job, waits until it has ended and deletes it; one that is not there
// is gone already.
func vanish(ctx context.Context, c *client.Client, name string) error {
	if _, err := c.Cancel(ctx, name, "bench"); err != nil && !fault.Is(err, fault.Conflict) {
		return ignoreMissing(err)
	}
	err := c.Delete(ctx, name)
	if !fault.Is(err, fault.Conflict) {
		return ignoreMissing(err)
	}
	for _, err := range c.Watch(ctx, name) {
		if err != nil {
			return ignoreMissing(err)
		}
	}
	return ignoreMissing(c.Delete(ctx, name))
}

func ignoreMissing(err error) error {
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

func (a app) benchStartCommand() *cobra.Command {
	var count, together int
	var file string
	command := &cobra.Command{
		Use:   "start",
		Short: "From submitting a trivial task to seeing it run",
		Long: "Submit jobs of one trivial task, or those that a job file describes, and measure the time from before the\n" +
			"submission until the client sees that the task's process has started. The jobs are deleted afterwards.",
		Example: "  clary bench start --count 20 -o json\n  clary bench start -f script.yaml",
		Args:    shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			if count < 1 || count > 100_000 || together < 1 || together > 1000 {
				return fault.New(fault.Invalid, "--count takes 1 to 100000, --together 1 to 1000")
			}
			sample, err := a.benchSample(file)
			if err != nil {
				return err
			}
			return a.benchStart(ctx, c, sample, count, together)
		}),
	}
	command.Flags().StringVarP(&file, "file", "f", "", benchFileHelp)
	command.Flags().IntVar(&count, "count", 20, "how many jobs")
	command.Flags().IntVar(&together, "together", 1, "how many at the same time")
	return command
}

func (a app) benchStart(ctx context.Context, c *client.Client, sample cluster.Job, count, together int) error {
	prefix := submit.FreshName("bench")
	var mu sync.Mutex
	var times []time.Duration
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(together)
	began := time.Now()
	for index := range count {
		group.Go(func() error {
			job := sample
			job.Name = benchName(prefix, 0, index)
			d, err := startOnce(ctx, c, job)
			mu.Lock()
			defer mu.Unlock()
			times = append(times, d)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	took := time.Since(began)
	slices.Sort(times)
	return a.showBench(benchJSON{P50: quantile(times, 0.5), P99: quantile(times, 0.99), Count: count, Seconds: math.Round(took.Seconds()*100) / 100}, "starts")
}

// startOnce submits one job and answers how long it took until its process ran.
func startOnce(ctx context.Context, c *client.Client, job cluster.Job) (time.Duration, error) {
	name := job.Name
	before := time.Now()
	if _, err := c.Submit(ctx, job); err != nil {
		return 0, err
	}
	var took time.Duration
	var last client.JobView
	for view, err := range c.Watch(ctx, name) {
		if err != nil {
			return 0, errors.Join(err, vanish(context.WithoutCancel(ctx), c, name))
		}
		last = view
		started := slices.ContainsFunc(view.Tasks, func(t cluster.Task) bool { return t.Status.Started != 0 })
		if took == 0 && started {
			took = time.Since(before)
		}
	}
	if took == 0 {
		return 0, fault.New(fault.Unready, "%s %s without having run: %s", name, last.Job.State, strings.TrimSpace(last.Job.Reason))
	}
	return took, vanish(ctx, c, name)
}
