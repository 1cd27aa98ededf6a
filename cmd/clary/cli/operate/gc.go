package operate

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

func (a app) gcCommand() *cobra.Command {
	var dry, yes bool
	command := &cobra.Command{
		Use: "gc", Short: "Show what is over and why, and remove it now", Args: shell.Takes(),
		Long: "Show what is over and why, and after a yes remove it now, a round's worth: records of jobs that ended long ago go to the\n" +
			"archive, expired tokens, objects that nothing names, old uploads and checkpoints that later attempts have gone beyond are\n" +
			"deleted. The cluster does that by itself, a little every minute; clary settings show says how long each is kept. Jobs are\n" +
			"deleted with all that they left only if retention.outputs is set; what a version of a model came from, or what a job,\n" +
			"sweep or endpoint that goes on needs, stays even then.",
		Example: "  clary gc --dry-run\n  clary gc --dry-run -o json\n  clary gc --yes",
	}
	flags := command.Flags()
	flags.BoolVar(&dry, "dry-run", false, "say what would go and why, and remove nothing")
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, _ []string) error {
		if !yes || dry {
			sweep, err := c.SweepUp(ctx, true)
			if err != nil {
				return err
			}
			if err := a.showOver(sweep, true); err != nil || dry || len(sweep.Gone) == 0 {
				return err
			}
			if err := a.Confirm(ctx, false, "Remove what is over"); err != nil {
				return err
			}
		}
		sweep, err := c.SweepUp(ctx, false)
		if err != nil {
			return err
		}
		return a.showOver(sweep, false)
	})
	return command
}

// showOver says what is over, and how much that takes in the object store or took.
func (a app) showOver(sweep client.Sweep, dry bool) error {
	bytes, objects := int64(0), int64(0)
	for _, g := range sweep.Gone {
		bytes, objects = bytes+g.Bytes, objects+g.Objects
	}
	err := a.Print(sweep, func(out io.Writer) error {
		var rows [][]string
		row := func(does string, g client.Gone) {
			size := ""
			if g.Objects > 0 {
				size = cluster.FormatBytes(g.Bytes)
			}
			rows = append(rows, []string{does, g.Kind, g.ID, size, g.Why})
		}
		for _, g := range sweep.Gone {
			row(fate(g.Kind, dry), g)
		}
		for _, g := range sweep.Kept {
			row("stays", g)
		}
		if len(rows) == 0 {
			return nil
		}
		return shell.Table(out, []string{"", "kind", "what", "frees", "why"}, rows)
	})
	switch {
	case err != nil:
		return err
	case len(sweep.Gone) == 0:
		a.Note("there is nothing to remove")
		return nil
	case sweep.More:
		a.Note("there is more: the cluster goes on by itself")
	}
	if dry {
		a.Note("nothing was removed: this shows what would go, and would free %s in %d objects", cluster.FormatBytes(bytes), objects)
	} else {
		a.Note("%d gone, which freed %s in %d objects", len(sweep.Gone), cluster.FormatBytes(bytes), objects)
	}
	return nil
}

// fate says in words what becomes of something that is over.
func fate(kind string, dry bool) string {
	done := "deleted"
	if kind == "record" {
		done = "archived"
	}
	if dry {
		return fmt.Sprintf("to be %s", done)
	}
	return done
}
