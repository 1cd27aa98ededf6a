// Command clary is the whole of Clary in one binary: coordinator, agent, what runs inside
// of training jobs, and every command of a user.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/clary-ml/clary/cmd/clary/cli"
)

func main() { os.Exit(run()) }

// run is main with an exit code. The first signal ends the command in its own way, the
// second one at once.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	root := newRoot(cli.System(kinds()))
	var profile profile
	profile.addTo(root)
	err := root.ExecuteContext(ctx)
	err = errors.Join(err, profile.stop())
	message, code := cli.Exit(err)
	if message != "" {
		fmt.Fprintln(os.Stderr, "clary: "+strings.TrimRight(message, "\n"))
	}
	return code
}
