package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
)

func (a *App) cancelCommand() *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:     "cancel JOB...",
		Short:   "End jobs: their tasks get SIGTERM, and SIGKILL after their grace",
		Example: "  clary cancel digits --reason 'wrong data'",
		Args:    takes("JOB..."), ValidArgsFunction: a.completeJobs(cluster.JobQueued, cluster.JobRunning, cluster.JobPublishing),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			return a.forEachJob(args, func(name string) (cluster.Job, error) { return c.Cancel(ctx, name, reason) }, "%s is to end")
		}),
	}
	command.Flags().StringVar(&reason, "reason", "", "why, for those who look at the job later")
	return command
}

func (a *App) releaseCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "release JOB...",
		Short:   "Let held jobs go",
		Example: "  clary release digits",
		Args:    takes("JOB..."), ValidArgsFunction: a.completeJobs(cluster.JobQueued),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			return a.forEachJob(args, func(name string) (cluster.Job, error) { return c.Release(ctx, name) }, "%s is released")
		}),
	}
}

func (a *App) deleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete JOB...",
		Short: "Forget jobs that have ended, with what they left in the object store",
		Long: "Forget jobs that have ended, and delete what is below s3://clary/jobs/JOB/: models, logs and checkpoints. With\n" +
			"a sweep goes what each of its trials has left there. Copies that a job's output asked for stay where they are, and\n" +
			"so do versions of models that were made of it: see clary models. An archived job is deleted in the same way.",
		Example: "  clary delete digits",
		Args:    takes("JOB..."), ValidArgsFunction: a.completeJobs(cluster.JobSucceeded, cluster.JobFailed, cluster.JobCancelled),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			return a.forEachJob(args, func(name string) (cluster.Job, error) { return cluster.Job{Name: name}, c.Delete(ctx, name) }, "%s is deleted")
		}),
	}
}

// forEachJob does one thing to each job, and goes on after an error to tell them all.
func (a *App) forEachJob(names []string, do func(string) (cluster.Job, error), said string) error {
	var errs []error
	done := []jobJSON{}
	for _, name := range names {
		job, err := do(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, jobToJSON(client.JobView{Job: job}))
	}
	err := a.print(done, func(out io.Writer) error {
		for _, job := range done {
			fmt.Fprintf(out, said+"\n", job.Name)
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

func (a *App) rerunCommand() *cobra.Command {
	var name string
	var detach bool
	command := &cobra.Command{
		Use:     "rerun JOB",
		Short:   "Submit a job's spec again as a new job",
		Example: "  clary rerun digits --name digits-2",
		Args:    takes("JOB"), ValidArgsFunction: a.completeJobs(),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			old, err := c.Job(ctx, args[0])
			if err != nil {
				return err
			}
			o := old.Job
			if name == "" {
				name = freshName(o.Name)
			}
			return a.submitAndWait(ctx, c, cluster.Job{
				Name: name, Kind: o.Kind, Queue: o.Queue, Priority: o.Priority, Labels: o.Labels, Spec: o.Spec,
				MaxRuntime: o.MaxRuntime, Retry: o.Retry, Register: o.Register, NonPreemptible: o.NonPreemptible,
			}, detach)
		}),
	}
	command.Flags().StringVar(&name, "name", "", "name of the new job; made from the old one's if it is left out")
	command.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for it")
	return command
}
