package jobs

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/workload/training"
)

// runFlags are those of a program.
type runFlags struct {
	job                       submit.JobFlags
	resources                 submit.ResourceFlags
	image                     submit.ImageFlags
	env, inputs, inputOptions []string
	secrets, metrics          []string
	instances                 submit.TaskRange
	dir                       string
	checkpoints, isolated     bool
	exclusive                 bool
}

func (f *runFlags) register(command *cobra.Command) {
	f.job.Register(command)
	f.job.BecomesModel(command)
	f.resources.Register(command)
	f.image.Register(command)
	flags := command.Flags()
	flags.SetInterspersed(false)
	flags.StringArrayVarP(&f.env, "env", "e", nil, "variable of its environment, as KEY=VALUE, or KEY to pass your own on")
	f.instances.Register(flags, "instances", "n", "how many to start together: a number, or 2..8 for as many as there is room for")
	flags.BoolVar(&f.checkpoints, "checkpoints", false, "keep its checkpoints folder in the store, and restore it before a restart (default with --image)")
	flags.BoolVar(&f.exclusive, "exclusive", false, "never run it twice at once: it ends where its node loses the cluster, before it starts elsewhere")
	flags.BoolVar(&f.isolated, "network-isolation", false, "cut it off from every network")
	flags.StringVar(&f.dir, "dir", "", "working folder on the node; the task's own if it is left out")
	flags.StringArrayVar(&f.inputs, "input", nil, "data for it, as CHANNEL=s3://... or CHANNEL=PATH, which is uploaded")
	flags.StringArrayVar(&f.inputOptions, "input-option", nil, submit.ChannelOptionHelp)
	flags.StringArrayVar(&f.secrets, "secret", nil, submit.SecretHelp)
	flags.StringArrayVar(&f.metrics, "metric", nil, submit.MetricHelp)
}

// spec is the job that the flags describe, but for its image.
func (f *runFlags) spec(a app, command *cobra.Command, args []string) (training.Spec, error) {
	spec := training.Spec{Program: &training.Program{Command: args, Dir: f.dir}, Instances: f.instances.Most, MinInstances: f.instances.Least, NetworkIsolation: f.isolated, Exclusive: f.exclusive}
	if command.Flags().Changed("checkpoints") {
		spec.Checkpoints = &f.checkpoints
	}
	var err error
	if spec.Program.Env, err = a.Environment(f.env); err != nil {
		return spec, err
	}
	if spec.Inputs, err = submit.ChannelInputs("--input", f.inputs, f.inputOptions); err != nil {
		return spec, err
	}
	if spec.Metrics, err = submit.MetricDefinitions(f.metrics); err != nil {
		return spec, err
	}
	if spec.Secrets, err = submit.SecretRefs(f.secrets); err != nil {
		return spec, err
	}
	return spec, f.resources.Apply(command, &spec)
}

func (a app) runCommand() *cobra.Command {
	var f runFlags
	command := &cobra.Command{
		Use:   "run [flags] -- PROGRAM [ARGUMENT...]",
		Short: "Run any program on the cluster, show what it writes, exit as it did",
		Long: "Run any program on the cluster as a job. What it writes is shown as it comes, and clary exits as it\n" +
			"did. Ctrl-C cancels the job and waits for its end; --detach leaves it alone instead.",
		Example: `  clary run -- hostname
  clary run --cores 2 --memory 1GiB --gpus 1 -- python3 train.py --epochs 3
  clary run --instances 4 --env MODE=test -- ./worker.sh
  clary run --input data=./images -- ls -R .
  clary run --secret db-password=PASSWORD -- ./load.sh
  clary run --image docker.io/library/python:3.13 -- python3 -c 'print("hello")'`,
	}
	command.Args = func(command *cobra.Command, args []string) error {
		if f.image.Image != "" {
			return nil
		}
		return shell.Takes("PROGRAM...")(command, args)
	}
	f.register(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		spec, err := f.spec(a, command, args)
		if err != nil {
			return err
		}
		return a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			if err := f.image.Apply(ctx, a.App, c, command, &spec, f.job.DryRun); err != nil {
				return err
			}
			j, err := submit.ProgramJob(spec)
			if err != nil {
				return err
			}
			if err := f.job.Apply(command, &j); err != nil {
				return err
			}
			if j.Name == "" {
				j.Name = submit.FreshName(submit.ProgramName(spec))
			}
			return a.RunJob(ctx, c, j, f.job)
		})(command, args)
	}
	return command
}
