package jobs

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
)

func (a app) cancelCommand() *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:     "cancel JOB...",
		Short:   "End jobs: their tasks get SIGTERM, and SIGKILL after their grace",
		Example: "  clary cancel digits --reason 'wrong data'",
		Args:    shell.Takes("JOB..."), ValidArgsFunction: a.CompleteJobs(cluster.JobQueued, cluster.JobRunning, cluster.JobPublishing),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			return a.ForEachJob(args, func(name string) (cluster.Job, error) { return c.Cancel(ctx, name, reason) }, "%s is to end")
		}),
	}
	command.Flags().StringVar(&reason, "reason", "", "why, for those who look at the job later")
	return command
}

func (a app) releaseCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "release JOB...",
		Short:   "Let held jobs go",
		Example: "  clary release digits",
		Args:    shell.Takes("JOB..."), ValidArgsFunction: a.CompleteJobs(cluster.JobQueued),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			return a.ForEachJob(args, func(name string) (cluster.Job, error) { return c.Release(ctx, name) }, "%s is released")
		}),
	}
}

func (a app) deleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete JOB...",
		Short: "Forget jobs that have ended, with what they left in the object store",
		Long: "Forget jobs that have ended, and delete what is below s3://clary/jobs/JOB/: models, logs and checkpoints. With\n" +
			"a sweep goes what each of its trials has left there. Copies that a job's output asked for stay where they are, and\n" +
			"so do versions of models that were made of it: see clary models. An archived job is deleted in the same way.",
		Example: "  clary delete digits",
		Args:    shell.Takes("JOB..."), ValidArgsFunction: a.CompleteJobs(cluster.JobSucceeded, cluster.JobFailed, cluster.JobCancelled),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			return a.ForEachJob(args, func(name string) (cluster.Job, error) { return cluster.Job{Name: name}, c.Delete(ctx, name) }, "%s is deleted")
		}),
	}
}

func (a app) rerunCommand() *cobra.Command {
	var name string
	var detach bool
	command := &cobra.Command{
		Use:     "rerun JOB",
		Short:   "Submit a job's spec again as a new job",
		Example: "  clary rerun digits --name digits-2",
		Args:    shell.Takes("JOB"), ValidArgsFunction: a.CompleteJobs(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			old, err := c.Job(ctx, args[0])
			if err != nil {
				return err
			}
			o := old.Job
			if name == "" {
				name = submit.FreshName(o.Name)
			}
			return a.SubmitAndWait(ctx, c, cluster.Job{
				Name: name, Kind: o.Kind, Queue: o.Queue, Priority: o.Priority, Labels: o.Labels, Spec: o.Spec,
				MaxRuntime: o.MaxRuntime, Retry: o.Retry, Register: o.Register, NonPreemptible: o.NonPreemptible,
			}, detach)
		}),
	}
	command.Flags().StringVar(&name, "name", "", "name of the new job; made from the old one's if it is left out")
	command.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for it")
	return command
}
