// Package data has the commands of objects and tables: copy, prepare, process.
package data

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
)

func (a app) cpCommand() *cobra.Command {
	var recursive bool
	command := &cobra.Command{
		Use:   "cp FROM TO",
		Short: "Copy a file into the object store or a running task, or out of them",
		Long: "Copy a file into the object store or out of it, - being standard input or output; or a file or folder of a running\n" +
			"task, as JOB:PATH or JOB/worker-1:PATH, which is put on record.",
		Example: `  clary cp train.csv.gz s3://data/digits/
  clary cp -r ./images s3://data/images/
  clary cp s3://data/digits/train.csv.gz .
  clary cp s3://data/notes.txt -
  clary cp digits:/opt/ml/checkpoints .
  clary cp fix.py digits/worker-1:/tmp`,
		Args: shell.Takes("FROM", "TO"),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			from, to := args[0], args[1]
			if job, task, path, ok := taskFile(from); ok {
				return a.getFromTask(ctx, c, job, task, path, to)
			}
			if job, task, path, ok := taskFile(to); ok {
				return a.putIntoTask(ctx, c, from, job, task, path)
			}
			switch {
			case transfer.IsRemote(from) == transfer.IsRemote(to):
				return fault.New(fault.Invalid, "one of %q and %q must be s3://bucket/key and the other a file of this machine", from, to)
			case transfer.IsRemote(to) && recursive:
				return a.PutTree(ctx, c, from, to)
			case transfer.IsRemote(to):
				return a.PutOne(ctx, c, from, to)
			case recursive:
				return a.GetTree(ctx, c, from, to)
			}
			return a.GetOne(ctx, c, from, to)
		}),
	}
	command.Flags().BoolVarP(&recursive, "recursive", "r", false, "copy a folder, or all below a prefix")
	return command
}

func (a app) lsCommand() *cobra.Command {
	var recursive bool
	command := &cobra.Command{
		Use:     "ls [URI]",
		Short:   "List objects; without a URI, what Clary itself keeps",
		Example: "  clary ls\n  clary ls s3://clary/jobs/digits/ -r",
		Args:    shell.Takes("[URI]"),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			uri := "s3://clary/"
			if len(args) > 0 {
				uri = args[0]
			}
			var all client.Page
			var rows [][]string
			err := transfer.EachObject(ctx, c, uri, recursive, func(o client.Object, prefix string) error {
				if prefix != "" {
					all.Prefixes = append(all.Prefixes, prefix)
					rows = append(rows, []string{"", "", prefix})
					return nil
				}
				all.Objects = append(all.Objects, o)
				rows = append(rows, []string{cluster.FormatBytes(o.Size), shell.Ago(o.Modified), o.URI})
				return nil
			})
			if err != nil && !(fault.Is(err, fault.NotFound) && len(args) == 0) { // nothing was kept yet
				return err
			}
			return a.Print(all, func(out io.Writer) error {
				if len(rows) == 0 {
					a.Note("nothing is there")
					return nil
				}
				return shell.Table(out, []string{"size", "age", "uri"}, rows)
			})
		}),
	}
	command.Flags().BoolVarP(&recursive, "recursive", "r", false, "all levels")
	return command
}

func (a app) rmCommand() *cobra.Command {
	var recursive bool
	command := &cobra.Command{
		Use:     "rm URI...",
		Short:   "Delete objects",
		Example: "  clary rm s3://data/old.csv\n  clary rm -r s3://data/old/",
		Args:    shell.Takes("URI..."),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			deleted := int64(0)
			for _, uri := range args {
				n, err := c.DeleteObject(ctx, uri, recursive)
				if err != nil {
					return err
				}
				deleted += n
			}
			return a.Print(map[string]int64{"deleted": deleted}, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "deleted %d\n", deleted)
				return err
			})
		}),
	}
	command.Flags().BoolVarP(&recursive, "recursive", "r", false, "all below a prefix")
	return command
}
