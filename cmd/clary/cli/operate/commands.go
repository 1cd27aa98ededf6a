package operate

import (
	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

// app is what these commands are methods of.
type app struct{ *shell.App }

// Commands are all commands of operators, for the root to adopt.
func Commands(s *shell.App) []*cobra.Command {
	a := app{s}
	return shell.Under(shell.GroupCluster, a.nodesCommand(), a.topCommand(), a.doctorCommand(), a.queueCommand(), a.settingsCommand(), a.gcCommand(), a.clusterCommand(), a.keysCommand(), a.tokenCommand(), a.secretCommand(), a.auditCommand(), a.debugCommand(), a.loginCommand(), a.contextCommand(), a.versionCommand())
}
