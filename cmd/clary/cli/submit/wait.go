package submit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

// WhyEvery is how often a waiting job is asked what it waits for.
const WhyEvery = 3 * time.Second

// Wait shows a job's life until it has ended and answers with its exit code.
func (a App) Wait(ctx context.Context, c *client.Client, name string) error {
	view, err := a.Watch(ctx, c, name)
	if ctx.Err() != nil && !view.Job.State.Ended() {
		if err := shell.GaveUp(ctx); err != nil {
			return err
		}
		return shell.Exitf(shell.ExitInterrupted, "%s goes on without you: follow it with clary wait %s, end it with clary cancel %s", name, name, name)
	}
	if err != nil {
		return err
	}
	if !a.ForPeople() {
		if err := a.Print(shell.JobToJSON(view), nil); err != nil {
			return err
		}
	} else if view.Publication != nil {
		for _, output := range view.Publication.Outputs {
			fmt.Fprintf(a.Out, "%s  %s  %s\n", output.Name, shell.Amount(output), output.URI)
		}
	}
	return a.outcome(view)
}

// Watch draws the job's line at each change, and while it waits, what it waits for.
func (a App) Watch(ctx context.Context, c *client.Client, name string) (client.JobView, error) {
	drawn := &jobDrawing{line: a.NewLine()}
	ticking, stop := context.WithCancel(ctx)
	var ticker sync.WaitGroup
	defer ticker.Wait()
	defer stop()
	ticker.Go(func() { drawn.tick(ticking, c, name) })
	for view, err := range c.Watch(ctx, name) {
		if err != nil {
			drawn.line.End()
			return drawn.now(), err
		}
		drawn.show(view)
	}
	stop()
	ticker.Wait()
	drawn.line.End()
	return drawn.now(), nil
}

// jobDrawing is the newest view of a job on its line.
type jobDrawing struct {
	mu       sync.Mutex
	line     shell.Line
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
	d.line.Draw(JobLine(view, d.waitsFor))
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
		if waits && time.Since(last) >= WhyEvery {
			last = time.Now()
			if _, whys, err := c.Why(ctx, name); err == nil && len(whys) > 0 {
				d.mu.Lock()
				d.waitsFor = whys[0].Summary
				d.mu.Unlock()
			}
		}
		if view.Job.Name != "" && ctx.Err() == nil {
			d.mu.Lock()
			d.line.Draw(JobLine(d.view, d.waitsFor))
			d.mu.Unlock()
		}
	}
}

// outcome is nil for a job that succeeded, else an error with its task's exit code.
func (a App) outcome(view client.JobView) error {
	job := view.Job
	if job.State == cluster.JobSucceeded {
		return nil
	}
	code := shell.ExitFailed
	for _, task := range view.Tasks {
		if task.Attempt == job.Attempt && task.Status.State == cluster.TaskFailed && task.Status.ExitCode > 0 && task.Status.ExitCode < 256 {
			code = int(task.Status.ExitCode)
			break
		}
	}
	text := fmt.Sprintf("%s %s", job.Name, job.State)
	if job.Reason != "" {
		text += ": " + shell.OneLine(job.Reason)
	}
	if job.State == cluster.JobFailed {
		text += fmt.Sprintf("\nsee clary logs %s", job.Name)
	}
	return shell.Exitf(code, "%s", text)
}
