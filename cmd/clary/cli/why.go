package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

func (a *App) whyCommand() *cobra.Command {
	var queue string
	var limit int
	command := &cobra.Command{
		Use:   "why [JOB]",
		Short: "Tell what a job waits for: which constraint, how short it is, on which nodes",
		Long: "Tell what a job waits for: each constraint with how many nodes it rules out and how short the nearest is, its\n" +
			"place in its queue and who goes first, and what is known of when it starts. Without a job, one line for\n" +
			"each that waits, in the order in which they go.",
		Example: "  clary why digits\n  clary why digits -o json\n  clary why --queue lab",
		Args:    takes("[JOB]"), ValidArgsFunction: a.completeJobs(cluster.JobQueued),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
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
			return a.print(whysToJSON(whys), func(out io.Writer) error {
				if len(whys) == 0 {
					fmt.Fprintf(out, "%s is %s and waits for nothing%s\n", job.Name, stateText(job), suffixed(job.Reason, ""))
				}
				for _, why := range whys {
					showWhy(out, why)
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
func (a *App) whys(ctx context.Context, c *client.Client, queue string, limit int) error {
	whys, waiting, err := c.Whys(ctx, queue, limit)
	if err != nil {
		return err
	}
	return a.print(whysToJSON(whys), func(out io.Writer) error {
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
			rows = append(rows, []string{why.Gang, why.Queue, place, oneLine(why.Summary)})
		}
		if err := table(out, []string{"GANG", "QUEUE", "PLACE", "WHY"}, rows); err != nil {
			return err
		}
		if more := waiting - int64(len(whys)); more > 0 {
			a.note("and %d more: --limit shows more of them", more)
		}
		return nil
	})
}

func showWhy(out io.Writer, why cluster.Why) {
	fmt.Fprintf(out, "%s: %s\n", why.Gang, oneLine(why.Summary))
	for _, block := range why.Blocks {
		text := block.Text
		if text == "" {
			text = fmt.Sprintf("rules out %d nodes", block.Nodes)
		}
		if block.Only > 0 && len(why.Blocks) > 1 {
			text += fmt.Sprintf(" (%d would do but for this)", block.Only)
		}
		fmt.Fprintf(out, "  %s: %s\n", block.Constraint, oneLine(text))
	}
}

type whyJSON struct {
	Gang     string      `json:"gang"`
	Summary  string      `json:"summary"`
	Queue    string      `json:"queue,omitempty"`
	Place    int32       `json:"place,omitempty"`
	Of       int32       `json:"of,omitempty"`
	Expected string      `json:"expected,omitempty"`
	Blocks   []blockJSON `json:"blocks,omitempty"`
}

type blockJSON struct {
	Constraint string   `json:"constraint"`
	Nodes      int32    `json:"nodes"`
	Only       int32    `json:"only,omitempty"`
	Missing    int64    `json:"missing,omitempty"`
	Nearest    string   `json:"nearest,omitempty"`
	Text       string   `json:"text,omitempty"`
	Gangs      []string `json:"gangs,omitempty"`
	Until      string   `json:"until,omitempty"`
}

func whysToJSON(whys []cluster.Why) []whyJSON {
	out := []whyJSON{}
	for _, why := range whys {
		out = append(out, whyToJSON(why))
	}
	return out
}

func whyToJSON(why cluster.Why) whyJSON {
	w := whyJSON{Gang: why.Gang, Summary: why.Summary, Queue: why.Queue, Place: why.Place, Of: why.Of, Expected: moment(why.Expected)}
	for _, b := range why.Blocks {
		w.Blocks = append(w.Blocks, blockJSON{
			Constraint: b.Constraint, Nodes: b.Nodes, Only: b.Only, Missing: b.Missing, Nearest: b.Nearest,
			Text: b.Text, Gangs: b.Gangs, Until: moment(b.Until),
		})
	}
	return w
}
