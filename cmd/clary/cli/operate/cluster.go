package operate

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/version"
)

func (a app) clusterCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "cluster",
		Aliases: []string{"info"},
		Short:   "Show the coordinators, who leads, and who you are",
		Long:    "Show the coordinators, who leads, and who you are. Coordinators that the context does not know yet are\nadded to it, so that commands reach the cluster when the others are gone.",
		Example: "  clary cluster\n  clary cluster members\n  clary cluster add d",
		Args:    shell.Takes(),
		RunE: a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			info, err := c.Info(ctx)
			if err != nil {
				return err
			}
			who, err := c.WhoAmI(ctx)
			if err != nil {
				return err
			}
			if err := a.learn(info); err != nil {
				return err
			}
			value := struct {
				client.Info
				You client.Identity `json:"you"`
			}{info, who}
			return a.Print(value, func(out io.Writer) error {
				if err := shell.Fields(out, "you", who.Name+" ("+who.Role+")", "version", info.Version, "ca pin", info.CAPin, "revision", strconv.FormatUint(info.Revision, 10)); err != nil {
					return err
				}
				rows := make([][]string, len(info.Coordinators))
				for i, m := range info.Coordinators {
					rows[i] = []string{m.ID, m.Address, shell.Word(m.Leader, "leader", "follower"), shell.Word(m.Alive, "alive", "not seen"), shell.Word(m.Voter, "yes", "no")}
				}
				fmt.Fprintln(out)
				return shell.Table(out, []string{"coordinator", "address", "role", "state", "votes"}, rows)
			})
		}),
	}
	command.AddCommand(a.membersCommand(), a.addCoordinatorCommand(), a.removeCoordinatorCommand(), a.transferCommand(), a.upgradeStatusCommand(), a.snapshotCommand(), a.backupCommand(), a.restoreCommand(), a.recoverCommand())
	return command
}

func (a app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
		Example: "  clary version -o json",
		Args:    shell.Takes(),
		RunE: func(*cobra.Command, []string) error {
			if err := a.CheckFormat(); err != nil {
				return err
			}
			value := struct {
				Version  string `json:"version"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version.String(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return a.Print(value, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "clary %s (%s, %s)\n", value.Version, value.Go, value.Platform)
				return err
			})
		},
	}
}
