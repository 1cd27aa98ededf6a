package jobs

import (
	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
)

// app is what these commands are methods of.
type app struct{ submit.App }

// Commands are all commands of jobs, for the root to adopt.
func Commands(s *shell.App) []*cobra.Command {
	a := app{submit.For(s)}
	return shell.Under(shell.GroupJobs, a.trainCommand(), a.runCommand(), a.submitCommand(), a.jobsCommand(), a.jobCommand(), a.logsCommand(), a.metricsCommand(), a.attachCommand(), a.execCommand(), a.portForwardCommand(), a.waitCommand(), a.cancelCommand(), a.rerunCommand(), a.releaseCommand(), a.deleteCommand(), a.whyCommand(), a.schemaCommand())
}
