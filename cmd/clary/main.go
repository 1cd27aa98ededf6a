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

	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
)

func main() { os.Exit(run()) }

// run is main with an exit code. The first signal ends the command in its own way, the
// second one at once.
func run() int {
	experimental.SetDefaultBufferPool(buffers()) // before any other goroutine is there
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	root := newRoot(shell.System(kinds()))
	var profile profile
	profile.addTo(root)
	err := root.ExecuteContext(ctx)
	err = errors.Join(err, profile.stop())
	message, code := shell.Exit(err)
	if message != "" {
		fmt.Fprintln(os.Stderr, "clary: "+strings.TrimRight(message, "\n"))
	}
	return code
}

// buffers are what gRPC reads into and writes from. Its own go from 32 KiB to 1 MiB, so that each message between, as a piece of
// a log is, took a whole one: a hundred streams that nobody read held 350 MiB in an agent.
func buffers() mem.BufferPool {
	const kib = 1 << 10
	return mem.NewTieredBufferPool(256, 1*kib, 4*kib, 16*kib, 32*kib, 64*kib, 80*kib, 128*kib, 192*kib, 256*kib, 512*kib, 1024*kib)
}
