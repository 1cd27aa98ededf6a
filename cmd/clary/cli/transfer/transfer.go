package transfer

import "github.com/clary-ml/clary/cmd/clary/cli/shell"

// App is a shell that can also move files.
type App struct{ *shell.App }
