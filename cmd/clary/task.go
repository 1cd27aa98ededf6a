package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/agent/feeder"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/serving/batch/driver"
	"github.com/clary-ml/clary/storage/object/embedded"
	"github.com/clary-ml/clary/trainer/worker"
)

// newObjectStoreCommand is the embedded store's own process, which a coordinator starts.
func newObjectStoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "objectstore",
		Short:              "Serve the embedded object store (started by a coordinator)",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(command *cobra.Command, args []string) error {
			return embedded.Main(command.Context(), args, os.Getenv)
		},
	}
}

// newFeederCommand is the process that serves a task's lazy inputs, which an agent starts.
func newFeederCommand() *cobra.Command {
	return &cobra.Command{
		Use:    feeder.Argument + " FOLDER",
		Short:  "Serve the inputs of one task (started by an agent)",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			syscall.CloseOnExec(feeder.AliveDescriptor)
			log := slog.New(slog.NewTextHandler(command.ErrOrStderr(), nil))
			alive := os.NewFile(feeder.AliveDescriptor, "alive")
			return feeder.Main(command.Context(), feeder.Options{Dir: args[0], Alive: alive, Log: log})
		},
	}
}

// newTransformerCommand is what the drivers of a batch transform run.
func newTransformerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "transformer",
		Short:  "Feed the server of a batch transform (started by an agent)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options, err := driver.OptionsFromEnv(os.Getenv)
			if err != nil {
				return err
			}
			options.Out = command.OutOrStdout()
			if options.Memory > 0 { // else garbage may take as much again, and the task is killed
				debug.SetMemoryLimit(options.Memory + driver.Overhead*3/4)
			}
			if err := driver.Run(command.Context(), options); err != nil {
				return shell.ExitWith(driver.ExitCode(err), err)
			}
			return nil
		},
	}
}

// newTrainerCommand is what the tasks of a declared network run.
func newTrainerCommand() *cobra.Command {
	command := &cobra.Command{
		Use:    "trainer",
		Short:  "Run one task of a training (started by an agent)",
		Hidden: true,
	}
	for _, role := range []struct {
		name, short string
		run         func(context.Context, worker.Options) error
	}{
		{"worker", "Compute gradients", worker.RunWorker},
		{"server", "Hold parameters", worker.RunServer},
	} {
		command.AddCommand(&cobra.Command{
			Use: role.name, Short: role.short, Args: cobra.NoArgs,
			RunE: func(command *cobra.Command, _ []string) error {
				options, err := worker.OptionsFromEnv(os.Getenv)
				if err != nil {
					return err
				}
				options.Out = command.OutOrStdout()
				return role.run(command.Context(), options)
			},
		})
	}
	return command
}
