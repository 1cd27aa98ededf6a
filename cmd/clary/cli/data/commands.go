package data

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
)

// app is what these commands are methods of.
type app struct{ submit.App }

// Commands are all commands of objects and tables, for the root to adopt.
func Commands(s *shell.App) []*cobra.Command {
	a := app{submit.For(s)}
	return slices.Concat(
		shell.Under(shell.GroupJobs, a.processCommand()),
		shell.Under(shell.GroupData, a.cpCommand(), a.lsCommand(), a.rmCommand(), a.s3Command(), a.profileCommand(), a.prepareCommand()),
	)
}
