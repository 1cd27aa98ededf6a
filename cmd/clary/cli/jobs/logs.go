package jobs

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
)

func (a app) logsCommand() *cobra.Command {
	var request client.LogRequest
	var since, until string
	var stamped bool
	command := &cobra.Command{
		Use:   "logs JOB [TASK]",
		Short: "Show what a job's tasks wrote; TASK is worker-1, a role, or a task's whole ID",
		Long: `Show what a job's tasks wrote, by time, task and text. The tasks' logs are merged by time, or with -f shown as
they come, through new attempts.

While a task runs its node has its log, the newest 32 to 64 MiB of it. Within a minute a log is also in the object store,
below s3://clary/jobs/JOB/attempts/N/TASK/logs/, as compressed files of lines with their times (the newest 64 MiB). It stays
there, also when the node is gone, until the job is deleted. Of a task whose node is lost the last minute may be missing:
that is said.

--since and --until take an instant (2026-11-25T17:40:00Z, 2026-11-25T17:40, 17:40:09) or how long ago it was (10m, 2d).
--grep takes a regular expression (RE2). With -o json each line is an object with its time, task, stream and text.`,
		Example: `  clary logs digits
  clary logs -f digits worker-0
  clary logs digits --tail 50 --stderr
  clary logs digits --since 10m --grep 'loss|error' --timestamps
  clary logs digits --since 2026-11-25T17:40:00Z --until 2026-11-25T17:45:00Z -o json`,
		Args: shell.Takes("JOB", "[TASK]"), ValidArgsFunction: a.CompleteJobs(),
	}
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		request.Job = args[0]
		if len(args) > 1 {
			request.Task = args[1]
		}
		var err error
		if request.Since, err = submit.Instant("--since", since, time.Now()); err != nil {
			return err
		}
		if request.Until, err = submit.Instant("--until", until, time.Now()); err != nil {
			return err
		}
		err = a.ShowLogs(ctx, c, request, stamped)
		if ctx.Err() != nil {
			return shell.Exitf(shell.ExitInterrupted, "")
		}
		return err
	})
	flags := command.Flags()
	flags.BoolVarP(&request.Follow, "follow", "f", false, "go on until the job has ended")
	flags.Int64Var(&request.Tail, "tail", 0, "the last lines of each task only")
	flags.StringVar(&since, "since", "", "what was written from then on")
	flags.StringVar(&until, "until", "", "what was written before")
	flags.StringVar(&request.Match, "grep", "", "lines only in which this regular expression is found")
	flags.BoolVar(&stamped, "timestamps", false, "begin each line with its time")
	flags.BoolVar(&request.Stdout, "stdout", false, "standard output only")
	flags.BoolVar(&request.Stderr, "stderr", false, "standard error only")
	flags.Int32Var(&request.Attempt, "attempt", 0, "of this attempt; 0 is the newest")
	return command
}
