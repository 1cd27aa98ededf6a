package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
)

func (a *App) gcCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "gc", Short: "Remove what is over now, or say what would go and why", Args: takes(),
		Long: "Remove what is over now, a round's worth: records of jobs that ended long ago go to the archive, expired tokens and objects\n" +
			"that nothing names are deleted. The cluster does that by itself, a little every minute; clary settings show says how long\n" +
			"each is kept. Jobs are deleted with all that they left only if retention.outputs is set; what a version of a model came\n" +
			"from, or what a job, sweep or endpoint that goes on needs, stays even then.",
		Example: "  clary gc --dry-run\n  clary settings set retention.jobs=30d",
	}
	dry := command.Flags().Bool("dry-run", false, "say what would go and why, and remove nothing")
	command.RunE = a.with(func(ctx context.Context, c *client.Client, _ []string) error {
		sweep, err := c.SweepUp(ctx, *dry)
		if err != nil {
			return err
		}
		err = a.print(sweep, func(out io.Writer) error {
			var rows [][]string
			goes := "gone"
			if *dry {
				goes = "goes"
			}
			for _, g := range sweep.Gone {
				rows = append(rows, []string{goes, g.Kind, g.ID, g.Why})
			}
			for _, g := range sweep.Kept {
				rows = append(rows, []string{"stays", g.Kind, g.ID, g.Why})
			}
			if len(rows) == 0 {
				return nil
			}
			return table(out, []string{"", "kind", "what", "why"}, rows)
		})
		switch {
		case err != nil:
			return err
		case len(sweep.Gone) == 0:
			a.note("there is nothing to remove")
		case sweep.More:
			a.note("there is more: the cluster goes on by itself")
		}
		if *dry && len(sweep.Gone) > 0 {
			a.note("nothing was removed: this was a dry run")
		}
		return nil
	})
	return command
}
