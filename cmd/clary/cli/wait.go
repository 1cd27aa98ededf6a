package cli

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
)

// whyEvery is how often a waiting job is asked what it waits for.
const whyEvery = 3 * time.Second

func (a *App) waitCommand() *cobra.Command {
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "wait JOB",
		Short: "Wait until a job has ended, and exit as it did",
		Long: "Wait until a job has ended. The exit code is 0 if it succeeded, else that of the task that failed, or 1.\n" +
			"Ctrl-C ends the waiting and not the job.",
		Example: "  clary wait digits && clary cp -r s3://results/digits/ .",
		Args:    takes("JOB"), ValidArgsFunction: a.completeJobs(cluster.JobQueued, cluster.JobRunning, cluster.JobPublishing),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, timeout, Exitf(124, "%s has not ended after %s: it goes on", args[0], timeout))
				defer cancel()
			}
			return a.wait(ctx, c, args[0])
		}),
	}
	command.Flags().DurationVar(&timeout, "timeout", 0, "give up after so long, with exit code 124")
	return command
}

// wait shows a job's life until it has ended and answers with its exit code.
func (a *App) wait(ctx context.Context, c *client.Client, name string) error {
	view, err := a.watch(ctx, c, name)
	if ctx.Err() != nil && !view.Job.State.Ended() {
		if err := GaveUp(ctx); err != nil {
			return err
		}
		return Exitf(ExitInterrupted, "%s goes on without you: follow it with clary wait %s, end it with clary cancel %s", name, name, name)
	}
	if err != nil {
		return err
	}
	if !a.forPeople() {
		if err := a.print(jobToJSON(view), nil); err != nil {
			return err
		}
	} else if view.Publication != nil {
		for _, output := range view.Publication.Outputs {
			fmt.Fprintf(a.Out, "%s  %s  %s\n", output.Name, amount(output), output.URI)
		}
	}
	return a.outcome(view)
}

// watch draws the job's line at each change, and while it waits, what it waits for.
func (a *App) watch(ctx context.Context, c *client.Client, name string) (client.JobView, error) {
	drawn := &jobDrawing{line: a.newLine()}
	ticking, stop := context.WithCancel(ctx)
	var ticker sync.WaitGroup
	defer ticker.Wait()
	defer stop()
	ticker.Go(func() { drawn.tick(ticking, c, name) })
	for view, err := range c.Watch(ctx, name) {
		if err != nil {
			drawn.line.end()
			return drawn.now(), err
		}
		drawn.show(view)
	}
	stop()
	ticker.Wait()
	drawn.line.end()
	return drawn.now(), nil
}

// jobDrawing is the newest view of a job on its line.
type jobDrawing struct {
	mu       sync.Mutex
	line     live
	view     client.JobView
	waitsFor string
}

func (d *jobDrawing) now() client.JobView {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view
}

func (d *jobDrawing) show(view client.JobView) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view = view
	d.line.draw(jobLine(view, d.waitsFor))
}

// tick keeps the clock of the line going, and asks now and then what the job waits for.
func (d *jobDrawing) tick(ctx context.Context, c *client.Client, name string) {
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
		view := d.now()
		waits := view.Job.State == cluster.JobQueued && !view.Job.Held
		if waits && time.Since(last) >= whyEvery {
			last = time.Now()
			if _, whys, err := c.Why(ctx, name); err == nil && len(whys) > 0 {
				d.mu.Lock()
				d.waitsFor = whys[0].Summary
				d.mu.Unlock()
			}
		}
		if view.Job.Name != "" && ctx.Err() == nil {
			d.mu.Lock()
			d.line.draw(jobLine(d.view, d.waitsFor))
			d.mu.Unlock()
		}
	}
}

// outcome is nil for a job that succeeded, else an error with its task's exit code.
func (a *App) outcome(view client.JobView) error {
	job := view.Job
	if job.State == cluster.JobSucceeded {
		return nil
	}
	code := ExitFailed
	for _, task := range view.Tasks {
		if task.Attempt == job.Attempt && task.Status.State == cluster.TaskFailed && task.Status.ExitCode > 0 && task.Status.ExitCode < 256 {
			code = int(task.Status.ExitCode)
			break
		}
	}
	text := fmt.Sprintf("%s %s", job.Name, job.State)
	if job.Reason != "" {
		text += ": " + oneLine(job.Reason)
	}
	if job.State == cluster.JobFailed {
		text += fmt.Sprintf("\nsee clary logs %s", job.Name)
	}
	return Exitf(code, "%s", text)
}
