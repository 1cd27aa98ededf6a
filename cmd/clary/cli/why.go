package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
)

func (a *App) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "why JOB",
		Short:   "Tell what a job waits for: which constraint, how short it is, on which nodes",
		Example: "  clary why digits",
		Args:    takes("JOB"), ValidArgsFunction: a.completeJobs(cluster.JobQueued),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
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
