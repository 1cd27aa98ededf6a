package models

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
)

// app is what these commands are methods of.
type app struct{ submit.App }

// Commands are all commands of models, for the root to adopt.
func Commands(s *shell.App) []*cobra.Command {
	a := app{submit.For(s)}
	return slices.Concat(
		shell.Under(shell.GroupJobs, a.transformCommand()),
		shell.Under(shell.GroupData, a.modelsCommand(), a.evaluateCommand(), a.predictCommand(), a.serveCommand()),
	)
}
