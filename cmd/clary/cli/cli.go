// Package cli has the commands that speak to a cluster as a user does: through the client, with a table for
// people and -o json or yaml for scripts. Each folder has the commands of one idea; shell, transfer and submit
// are what they stand on.
package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/data"
	"github.com/clary-ml/clary/cmd/clary/cli/endpoints"
	"github.com/clary-ml/clary/cmd/clary/cli/jobs"
	"github.com/clary-ml/clary/cmd/clary/cli/measure"
	"github.com/clary-ml/clary/cmd/clary/cli/models"
	"github.com/clary-ml/clary/cmd/clary/cli/operate"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/tune"
)

// Commands are all commands of a user, for the root to adopt.
func Commands(s *shell.App) []*cobra.Command {
	return s.Finish(slices.Concat(
		jobs.Commands(s), tune.Commands(s), data.Commands(s), models.Commands(s),
		endpoints.Commands(s), operate.Commands(s), measure.Commands(s),
	))
}
