package models

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

func (a app) approveModelCommand() *cobra.Command {
	return a.decideCommand("approve", cluster.ApprovalApproved, "Approve a version", "  clary models approve digits@3 --why 'passed review'")
}

func (a app) rejectModelCommand() *cobra.Command {
	return a.decideCommand("reject", cluster.ApprovalRejected, "Reject a version: it can have no alias", "  clary models reject digits@2 --why 'worse on the night shift'")
}

func (a app) decideCommand(verb string, state cluster.ApprovalState, short, example string) *cobra.Command {
	var why string
	command := &cobra.Command{
		Use: verb + " REF", Short: short,
		Long:    short + ". Who, when and why are kept; a decision can be changed, and not be taken back to pending.\n" + refHelp,
		Example: example, Args: shell.Takes("REF"), ValidArgsFunction: a.completeModelRefs(),
	}
	command.Flags().StringVar(&why, "why", "", "the reason, for those who look at it later")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		version, err := c.ApproveModel(ctx, args[0], state, why)
		if err != nil {
			return err
		}
		return a.Print(versionToJSON(version, nil, nil), func(out io.Writer) error {
			_, err := fmt.Fprintf(out, "%s is %s\n", version.Ref(), version.Approval.State)
			return err
		})
	})
	return command
}

func (a app) aliasModelCommand() *cobra.Command {
	var remove bool
	command := &cobra.Command{
		Use:   "alias REF ALIAS",
		Short: "Give a version a name such as champion, or take the name away",
		Long: "Give a version a name such as champion, which another version of the model may have had. Jobs that were submitted\n" +
			"before go on with the version that they were given. " + refHelp,
		Example: "  clary models alias digits@3 champion\n  clary models alias digits:challenger champion\n  clary models alias digits champion --remove",
		Args:    shell.Takes("REF", "ALIAS"), ValidArgsFunction: a.completeModelRefs(),
	}
	command.Flags().BoolVar(&remove, "remove", false, "take the alias away; REF is the model's name")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		ref, err := parseRef(args[0])
		if err != nil {
			return err
		}
		number := ref.Number
		switch {
		case remove && !ref.Whole():
			return shell.Usage(command, "--remove goes with the model's name alone: clary models alias %s %s --remove", ref.Model, args[1])
		case !remove && ref.Whole():
			return shell.Usage(command, "%s names no version: write %s@VERSION", ref, ref.Model)
		case ref.Alias != "":
			view, err := c.ModelVersion(ctx, args[0])
			if err != nil {
				return err
			}
			number = view.Version.Number
		}
		model, err := c.AliasModel(ctx, ref.Model, args[1], number)
		if err != nil {
			return err
		}
		return a.Print(modelToJSON(model), func(out io.Writer) error {
			if remove {
				_, err := fmt.Fprintf(out, "%s has no alias %s any more\n", model.Name, args[1])
				return err
			}
			_, err := fmt.Fprintf(out, "%s:%s is version %s\n", model.Name, args[1], strconv.FormatInt(model.Aliases[args[1]], 10))
			return err
		})
	})
	return command
}

func (a app) deleteModelCommand() *cobra.Command {
	var evaluation string
	command := &cobra.Command{
		Use:   "delete NAME@VERSION...",
		Short: "Delete versions that nothing uses, with their artifacts; or a model without versions",
		Long: "Delete versions that nothing uses: no alias names them, no evaluation compares with them, no job that goes on reads\n" +
			"them. Their artifacts and reports go with them, and their numbers are not given again. A model that has no versions\n" +
			"is deleted by its name.",
		Example: "  clary models delete digits@2\n  clary models delete digits@1 digits@2\n  clary models delete digits\n  clary models delete digits@3 --evaluation held-out",
		Args:    shell.Takes("NAME@VERSION..."), ValidArgsFunction: a.completeModelRefs(),
	}
	command.Flags().StringVar(&evaluation, "evaluation", "", "delete this evaluation of the version, and not the version")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		var errs []error
		deleted := []string{}
		for _, ref := range args {
			var err error
			what := ref
			if evaluation != "" {
				what = ref + "/" + evaluation
				_, err = c.RemoveEvaluation(ctx, ref, evaluation)
			} else {
				err = c.DeleteModel(ctx, ref)
			}
			if errs = append(errs, err); err == nil {
				deleted = append(deleted, what)
			}
		}
		err := a.Print(map[string][]string{"deleted": deleted}, func(out io.Writer) error {
			for _, what := range deleted {
				fmt.Fprintf(out, "%s is deleted\n", what)
			}
			return nil
		})
		return errors.Join(append(errs, err)...)
	})
	return command
}
