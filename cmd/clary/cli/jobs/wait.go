package jobs

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

func (a app) waitCommand() *cobra.Command {
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "wait JOB",
		Short: "Wait until a job has ended, and exit as it did",
		Long: "Wait until a job has ended. The exit code is 0 if it succeeded, else that of the task that failed, or 1.\n" +
			"Ctrl-C ends the waiting and not the job.",
		Example: "  clary wait digits && clary cp -r s3://results/digits/ .",
		Args:    shell.Takes("JOB"), ValidArgsFunction: a.CompleteJobs(cluster.JobQueued, cluster.JobRunning, cluster.JobPublishing),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, timeout, shell.Exitf(124, "%s has not ended after %s: it goes on", args[0], timeout))
				defer cancel()
			}
			return a.Wait(ctx, c, args[0])
		}),
	}
	command.Flags().DurationVar(&timeout, "timeout", 0, "give up after so long, with exit code 124")
	return command
}
