package submit

import (
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
)

// App is a shell that can also move files and submit jobs.
type App struct{ transfer.App }

// For gives a shell what it takes to submit jobs.
func For(s *shell.App) App { return App{transfer.App{App: s}} }
