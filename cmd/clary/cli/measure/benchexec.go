package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
)

const benchFileHelp = "job file to submit instead of a trivial task; each job gets a name of its own"

// benchSample is the job that a measurement submits again and again.
func (a app) benchSample(file string) (cluster.Job, error) {
	if file == "" {
		return trivialJob()
	}
	return a.ReadJobFile(file)
}

// burst is a measurement of many tasks that come at once.
type burst struct {
	count int
	file  string
	stay  time.Duration
}

func (a app) benchBurstCommand() *cobra.Command {
	var b burst
	command := &cobra.Command{
		Use:   "burst",
		Short: "How many tasks start in a second when many come at once",
		Long: "Submit many jobs of one trivial task at once, or those that a job file describes, and count how many tasks\n" +
			"started in a second: from before the first submission to the start of the last process, as its node tells it.\n" +
			"The clocks of client and nodes must agree. The jobs are deleted afterwards.",
		Example: "  clary bench burst --count 200\n  clary bench burst --count 1 -f gang.yaml -o json\n  clary bench burst -f sleeps.yaml --stay 30s",
		Args:    shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			if b.count < 1 || b.count > 100_000 || b.stay < 0 {
				return fault.New(fault.Invalid, "--count takes 1 to 100000, and --stay no negative time")
			}
			return a.benchBurst(ctx, c, b)
		}),
	}
	flags := command.Flags()
	flags.IntVar(&b.count, "count", 200, "how many jobs")
	flags.StringVarP(&b.file, "file", "f", "", benchFileHelp)
	flags.DurationVar(&b.stay, "stay", 0, "leave them running for so long, once all have started and it was told")
	return command
}

// submitters is how many submissions of a burst are on their way at a time.
const submitters = 32

func (a app) benchBurst(ctx context.Context, c *client.Client, b burst) (err error) {
	sample, err := a.benchSample(b.file)
	if err != nil {
		return err
	}
	prefix := submit.FreshName("bench")
	defer func() {
		var deleting errgroup.Group
		deleting.SetLimit(submitters)
		for index := range b.count {
			deleting.Go(func() error { return vanish(context.WithoutCancel(ctx), c, benchName(prefix, 0, index)) })
		}
		err = errors.Join(err, deleting.Wait())
	}()
	submitted := make([]time.Time, b.count)
	var submitting errgroup.Group
	submitting.SetLimit(submitters)
	began := time.Now()
	for index := range b.count {
		submitting.Go(func() error {
			job := sample
			job.Name = benchName(prefix, 0, index)
			submitted[index] = time.Now()
			_, err := c.Submit(ctx, job)
			return err
		})
	}
	if err := submitting.Wait(); err != nil {
		return err
	}
	var last time.Time
	var times []time.Duration
	for index := range b.count { // one after the other: who measures shares the machine
		started, err := allStarted(ctx, c, benchName(prefix, 0, index))
		if err != nil {
			return err
		}
		for _, at := range started {
			times = append(times, at.Sub(submitted[index]))
			if at.After(last) {
				last = at
			}
		}
	}
	slices.Sort(times)
	took := last.Sub(began)
	if err := a.showBench(benchJSON{
		PerSecond: math.Round(float64(len(times))/took.Seconds()*10) / 10, P50: quantile(times, 0.5), P99: quantile(times, 0.99),
		Count: len(times), Seconds: math.Round(took.Seconds()*1000) / 1000,
	}, "starts"); err != nil {
		return err
	}
	select {
	case <-time.After(b.stay):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// allStarted waits until every task of a job has started, and tells when.
func allStarted(ctx context.Context, c *client.Client, name string) ([]time.Time, error) {
	var last client.JobView
	for view, err := range c.Watch(ctx, name) {
		if err != nil {
			return nil, err
		}
		last = view
		var started []time.Time
		for _, task := range view.Tasks {
			if task.Status.Started != 0 {
				started = append(started, time.Unix(0, task.Status.Started))
			}
		}
		size := 0
		for _, gang := range view.Gangs {
			size += gang.Size()
		}
		if size > 0 && len(started) == size {
			return started, nil
		}
	}
	return nil, fault.New(fault.Unready, "%s %s without all its tasks having run: %s", name, last.Job.State, strings.TrimSpace(last.Job.Reason))
}

// lastView waits for a job's end.
func lastView(ctx context.Context, c *client.Client, name string) (last client.JobView, err error) {
	for view, err := range c.Watch(ctx, name) {
		if err != nil {
			return last, err
		}
		last = view
	}
	return last, nil
}

// logsJSON is a measurement of a task that writes as fast as it can.
type logsJSON struct {
	Bytes   int64   `json:"bytes"`
	Shown   int64   `json:"shown_bytes"`
	Written float64 `json:"written_mb_per_second"`
	Seconds float64 `json:"written_after_s"`
	All     float64 `json:"shown_after_s"`
}

func (a app) benchLogsCommand() *cobra.Command {
	var size string
	var after bool
	command := &cobra.Command{
		Use:   "logs",
		Short: "How fast a task can write its log, and how soon it is shown",
		Long: "Run a task that writes lines of 100 bytes as fast as it can, follow its log, and tell how long the task took\n" +
			"and when its last byte was shown, both from the task's start. The job is deleted afterwards.",
		Example: "  clary bench logs --size 16MiB\n  clary bench logs --size 1GiB --after",
		Args:    shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			bytes, err := quantity.ParseBytes(size)
			if err != nil || bytes < 1 {
				return fault.New(fault.Invalid, "--size: %q is no amount like 16MiB", size)
			}
			return a.benchLogs(ctx, c, int64(bytes), after)
		}),
	}
	command.Flags().StringVar(&size, "size", "16MiB", "how much it writes")
	command.Flags().BoolVar(&after, "after", false, "show the log once the task has ended, instead of following it")
	return command
}

func (a app) benchLogs(ctx context.Context, c *client.Client, size int64, after bool) (err error) {
	job, err := smallJob("sh", "-c", "yes "+strings.Repeat("0123456789", 9)+"012345678 | head -c "+strconv.FormatInt(size, 10))
	if err != nil {
		return err
	}
	job.Name = submit.FreshName("bench-logs")
	if _, err := c.Submit(ctx, job); err != nil {
		return err
	}
	defer func() {
		if left := vanish(context.WithoutCancel(ctx), c, job.Name); err == nil {
			err = left
		}
	}()
	if after {
		if _, err := lastView(ctx, c, job.Name); err != nil {
			return err
		}
	}
	result := logsJSON{Bytes: size}
	began := time.Now()
	for chunk, err := range c.Logs(ctx, client.LogRequest{Job: job.Name, Follow: !after, Stdout: true}) {
		if err != nil {
			return err
		}
		for _, e := range chunk.Entries {
			result.Shown += e.Size()
		}
	}
	shown := time.Now()
	view, err := lastView(ctx, c, job.Name)
	if err != nil {
		return err
	}
	if view.Job.State != cluster.JobSucceeded || len(view.Tasks) == 0 {
		return fault.New(fault.Unready, "%s %s: %s", job.Name, view.Job.State, view.Job.Reason)
	}
	status := view.Tasks[0].Status
	if !after {
		began = time.Unix(0, status.Started)
	}
	took := time.Duration(status.Ended - status.Started)
	result.Seconds, result.All = took.Seconds(), shown.Sub(began).Seconds()
	result.Written = math.Round(float64(size)/took.Seconds()/1e5) / 10
	return a.Print(result, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%s written in %.2f s: %.0f MB/s; %s shown after %.2f s\n",
			cluster.FormatBytes(result.Bytes), result.Seconds, result.Written, cluster.FormatBytes(result.Shown), result.All)
		return err
	})
}
