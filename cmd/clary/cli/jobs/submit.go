package jobs

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/jobfile"
)

func (a app) submitCommand() *cobra.Command {
	var path, name string
	var wait, dryRun bool
	command := &cobra.Command{
		Use:   "submit -f FILE",
		Short: "Submit the job that a YAML or JSON file describes",
		Long: "Submit the job that a YAML or JSON file describes; see clary schema for its fields. Inputs that are\n" +
			"paths, relative to the file, are uploaded first.",
		Example: "  clary submit -f digits.yaml\n  clary submit -f digits.yaml --dry-run\n  jq .epochs=5 job.json | clary submit -f - --wait",
		Args:    shell.Takes(),
	}
	flags := command.Flags()
	flags.StringVarP(&path, "file", "f", "", "the job file; - is standard input")
	flags.StringVar(&name, "name", "", "name of the job, in place of the file's")
	flags.BoolVarP(&wait, "wait", "w", false, "wait until the job has ended")
	flags.BoolVar(&dryRun, "dry-run", false, "say what would be placed where, and submit nothing")
	command.RunE = func(command *cobra.Command, args []string) error {
		if path == "" {
			return shell.Usage(command, "-f is missing: name a job file, or - for standard input")
		}
		job, err := a.ReadJobFile(path)
		if err != nil {
			return err
		}
		if name != "" {
			job.Name = name
		}
		return a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			if dryRun {
				return a.DryRun(ctx, c, job, submit.FolderOf(path))
			}
			if job, err = a.UploadInputs(ctx, c, job, submit.FolderOf(path)); err != nil {
				return err
			}
			return a.SubmitAndWait(ctx, c, job, !wait)
		})(command, args)
	}
	return command
}

func (a app) schemaCommand() *cobra.Command {
	names := shell.SortedKeys(a.Kinds)
	return &cobra.Command{
		Use:     "schema [KIND]",
		Short:   "Print the JSON Schema of a job file",
		Example: "  clary schema\n  clary schema training > training.schema.json",
		Args:    shell.Takes("[KIND]"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return kindTexts(names), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			name := cluster.KindTraining
			if len(args) > 0 {
				name = cluster.Kind(args[0])
			}
			kind, known := a.Kinds[name]
			if !known {
				return fault.New(fault.Invalid, "kind %q is unknown: there is %s", name, strings.Join(kindTexts(names), ", "))
			}
			text, err := jobfile.Schema(name, kind)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.Out, "%s\n", text)
			return err
		},
	}
}

func kindTexts(kinds []cluster.Kind) []string {
	texts := make([]string, len(kinds))
	for i, kind := range kinds {
		texts[i] = string(kind)
	}
	return texts
}
