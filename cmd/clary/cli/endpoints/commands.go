package endpoints

import (
	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
)

// app is what these commands are methods of.
type app struct{ submit.App }

// Commands are all commands of endpoints, for the root to adopt.
func Commands(s *shell.App) []*cobra.Command {
	a := app{submit.For(s)}
	return shell.Under(shell.GroupServing, a.deployCommand(), a.invokeCommand(), a.abCommand(), a.endpointCommand(), a.endpointsCommand())
}
