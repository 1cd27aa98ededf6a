package submit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

// ForEachJob does one thing to each job, and goes on after an error to tell them all.
func (a App) ForEachJob(names []string, do func(string) (cluster.Job, error), said string) error {
	var errs []error
	done := []shell.JobJSON{}
	for _, name := range names {
		job, err := do(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, shell.JobToJSON(client.JobView{Job: job}))
	}
	err := a.Print(done, func(out io.Writer) error {
		for _, job := range done {
			fmt.Fprintf(out, said+"\n", job.Name)
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// RunJob submits a job and shows its logs until it has ended; Ctrl-C cancels it.
func (a App) RunJob(ctx context.Context, c *client.Client, j cluster.Job, flags JobFlags) error {
	if flags.DryRun {
		return a.DryRun(ctx, c, j, ".")
	}
	j, err := a.UploadInputs(ctx, c, j, ".")
	if err != nil {
		return err
	}
	if flags.Detach || flags.hold {
		return a.SubmitAndWait(ctx, c, j, true)
	}
	name := j.Name
	var view client.JobView
	if _, err = c.Submit(ctx, j); err == nil {
		view, err = a.attend(ctx, c, name)
	}
	if ctx.Err() != nil && !view.Job.State.Ended() {
		view, err = a.cancelAndWait(context.WithoutCancel(ctx), c, name)
		if fault.Is(err, fault.NotFound) { // interrupted before it was submitted
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		return shell.Exitf(shell.ExitInterrupted, "%s %s", name, view.Job.State)
	}
	if err != nil {
		return err
	}
	return a.outcome(view)
}

// attend shows a job's logs, and on the side what it waits for, until it has ended.
func (a App) attend(ctx context.Context, c *client.Client, name string) (client.JobView, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var logs, waiting sync.WaitGroup
	var logErr error
	logs.Go(func() { logErr = a.ShowLogs(ctx, c, client.LogRequest{Job: name, Follow: true}, false) })
	placed, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	waiting.Go(func() { a.sayWhatItWaitsFor(placed, c, name) })
	var view client.JobView
	var watchErr error
	for v, err := range c.Watch(ctx, name) {
		if watchErr = err; err == nil {
			view = v
		}
		if view.Job.State != cluster.JobQueued {
			stopWaiting()
		}
	}
	stopWaiting()
	waiting.Wait()
	if watchErr != nil {
		cancel()
	}
	logs.Wait() // they end by themselves once the job has
	if watchErr == nil && logErr != nil && ctx.Err() == nil {
		a.Note("clary: the logs ended early: %v", logErr)
	}
	return view, watchErr
}

// sayWhatItWaitsFor tells a person, after a moment, why nothing is to be seen yet, and
// again when the reason changes.
func (a App) sayWhatItWaitsFor(ctx context.Context, c *client.Client, name string) {
	clock := time.NewTicker(WhyEvery)
	defer clock.Stop()
	for said := ""; ; {
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
		_, whys, err := c.Why(ctx, name)
		if err == nil && len(whys) > 0 && whys[0].Summary != said {
			said = whys[0].Summary
			a.Note("clary: %s waits: %s", name, shell.OneLine(said))
		}
	}
}

// cancelTime is how long an interrupted clary run waits for the job's end: the longest
// usual grace, and some.
const cancelTime = 3 * time.Minute

func (a App) cancelAndWait(ctx context.Context, c *client.Client, name string) (client.JobView, error) {
	a.Note("clary: cancelling %s and waiting for its end; Ctrl-C again leaves at once", name)
	ctx, done := context.WithTimeout(ctx, cancelTime)
	defer done()
	if _, err := c.Cancel(ctx, name, "interrupted"); err != nil {
		return client.JobView{}, err
	}
	var view client.JobView
	for v, err := range c.Watch(ctx, name) {
		if errors.Is(err, context.DeadlineExceeded) {
			return view, fault.New(fault.Unready, "%s has not ended after %s: look at clary job %s", name, cancelTime, name)
		}
		if err != nil {
			return view, err
		}
		view = v
	}
	return view, nil
}
