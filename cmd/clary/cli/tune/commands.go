package tune

import (
	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
)

// app is what these commands are methods of.
type app struct{ submit.App }

// Commands are all commands of sweeps, for the root to adopt.
func Commands(s *shell.App) []*cobra.Command {
	a := app{submit.For(s)}
	return shell.Under(shell.GroupJobs, a.tuneCommand(), a.sweepCommand(), a.sweepsCommand(), a.trialsCommand())
}
