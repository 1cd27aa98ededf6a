package jobs

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
)

func (a app) whyCommand() *cobra.Command {
	var queue string
	var limit int
	command := &cobra.Command{
		Use:   "why [JOB]",
		Short: "Tell what a job waits for: which constraint, how short it is, on which nodes",
		Long: "Tell what a job waits for: each constraint with how many nodes it rules out and how short the nearest is, its\n" +
			"place in its queue and who goes first, and what is known of when it starts. Without a job, one line for\n" +
			"each that waits, in the order in which they go.",
		Example: "  clary why digits\n  clary why digits -o json\n  clary why --queue lab",
		Args:    shell.Takes("[JOB]"), ValidArgsFunction: a.CompleteJobs(cluster.JobQueued),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 0 {
				return a.whys(ctx, c, queue, limit)
			}
			if queue != "" {
				return fault.New(fault.Invalid, "--queue: %s has one queue: leave the job out to see all that waits in a queue", args[0])
			}
			job, whys, err := c.Why(ctx, args[0])
			if err != nil {
				return err
			}
			return a.Print(submit.WhysToJSON(whys), func(out io.Writer) error {
				if len(whys) == 0 {
					fmt.Fprintf(out, "%s is %s and waits for nothing%s\n", job.Name, shell.StateText(job), shell.Suffixed(job.Reason, ""))
				}
				for _, why := range whys {
					submit.ShowWhy(out, why)
				}
				return nil
			})
		}),
	}
	command.Flags().StringVar(&queue, "queue", "", "without a job: only what waits in this queue")
	command.Flags().IntVar(&limit, "limit", 100, "without a job: tell of so many at most")
	return command
}

// whys tells of all that waits.
func (a app) whys(ctx context.Context, c *client.Client, queue string, limit int) error {
	whys, waiting, err := c.Whys(ctx, queue, limit)
	if err != nil {
		return err
	}
	return a.Print(submit.WhysToJSON(whys), func(out io.Writer) error {
		if waiting == 0 {
			fmt.Fprintln(out, "nothing waits")
			return nil
		}
		var rows [][]string
		for _, why := range whys {
			place := ""
			if why.Place > 0 {
				place = fmt.Sprintf("%d of %d", why.Place, why.Of)
			}
			rows = append(rows, []string{why.Gang, why.Queue, place, shell.OneLine(why.Summary)})
		}
		if err := shell.Table(out, []string{"GANG", "QUEUE", "PLACE", "WHY"}, rows); err != nil {
			return err
		}
		if more := waiting - int64(len(whys)); more > 0 {
			a.Note("and %d more: --limit shows more of them", more)
		}
		return nil
	})
}
