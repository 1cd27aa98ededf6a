package main

import (
	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/version"
	"github.com/clary-ml/clary/workload/endpoint"
	"github.com/clary-ml/clary/workload/jobfile"
	"github.com/clary-ml/clary/workload/processing"
	"github.com/clary-ml/clary/workload/training"
	"github.com/clary-ml/clary/workload/transform"
	"github.com/clary-ml/clary/workload/tuning"
)

const groupMachines = "machines"

// machineCommands are those that run on the cluster's own machines; the rest is in cli.
var machineCommands = []func() *cobra.Command{newDevCommand, newServerCommand, newAgentCommand, newObjectStoreCommand, newFeederCommand, newTrainerCommand, newStepsCommand, newTransformerCommand, newRouterCommand}

// kinds are the kinds of job that this build knows.
func kinds() map[cluster.Kind]jobfile.Kind {
	return map[cluster.Kind]jobfile.Kind{
		cluster.KindTraining:   {Check: training.Kind{}.Check, Spec: training.Spec{}},
		cluster.KindTuning:     {Check: tuning.Kind{}.Check, Spec: tuning.Spec{}},
		cluster.KindProcessing: {Check: processing.Kind{}.Check, Spec: processing.Spec{}},
		cluster.KindTransform:  {Check: transform.Kind{}.Check, Spec: transform.Spec{}},
		cluster.KindEndpoint:   {Check: endpoint.Kind{}.Check, Spec: endpoint.Spec{}},
	}
}

// newRoot is the command that all others hang from.
func newRoot(app *shell.App) *cobra.Command {
	root := &cobra.Command{
		Use:   "clary",
		Short: "A machine-learning platform on your own machines",
		Long: "Clary turns a handful of Linux machines into a machine-learning platform: it trains, runs, places and\n" +
			"watches jobs. Begin with clary login, or with make demo in its source.",
		Example:       "  clary train --data train.csv.gz --name digits\n  clary run --gpus 1 -- python3 train.py\n  clary jobs",
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(app.In)
	root.SetOut(app.Out)
	root.SetErr(app.Err)
	root.AddGroup(shell.Groups()...)
	root.AddGroup(&cobra.Group{ID: groupMachines, Title: "Machines:"})
	root.AddCommand(cli.Commands(app)...)
	for _, construct := range machineCommands {
		command := construct()
		if !command.Hidden {
			command.GroupID = groupMachines
		}
		root.AddCommand(command)
	}
	root.SetFlagErrorFunc(shell.FlagError)
	shell.StrictUsage(root)
	return root
}
