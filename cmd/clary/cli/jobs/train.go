package jobs

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
)

func (a app) trainCommand() *cobra.Command {
	var t submit.TrainFlags
	var job submit.JobFlags
	var resources submit.ResourceFlags
	var script submit.ScriptFlags
	command := &cobra.Command{
		Use:   "train [flags] [-- ARGUMENT...]",
		Short: "Train a network or run a training script or image, and wait for it",
		Long: "Train a network, given by flags or by a job file, or run a training script or image of your own, and wait for it.\n" +
			"Data and code of this machine are uploaded to the object store first. Ctrl-C ends the waiting and not the job.\n\n" +
			"A script finds its data, arguments and SM_ variables as in SageMaker's script mode, writes its model to\n" +
			"SM_MODEL_DIR and is restarted from /opt/ml/checkpoints. What stands after -- is given to it.\n" +
			"An image is started with the argument train, as SageMaker does, or with what stands after --.",
		Example: `  clary train --data train.csv.gz --validation test.csv.gz --network 128,64 --epochs 20 --name digits
  clary train --data s3://data/train.csv --input 64 --classes 10 --workers 2 --servers 2
  clary train --data s3://data/train.csv --input 64 --classes 10 --workers 2..8
  clary train -f digits.yaml --epochs 5 --dry-run
  clary train --script train.py --source src/ --requirements requirements.txt --data train.csv -- --epochs 3
  clary train --image registry.local/team/trainer:3 --data train.csv --hyperparameter lr=0.1
  clary train --script ddp.py --framework torch --instances 2 --hyperparameter lr=0.1
  clary train --best-of digits-sweep --epochs 100 --name digits
  clary train -f digits.yaml --register digits`,
	}
	command.Args = func(command *cobra.Command, args []string) error {
		if script.Given() {
			return nil
		}
		return shell.Takes()(command, args)
	}
	t.Register(command)
	script.Register(command)
	job.Register(command)
	job.BecomesModel(command)
	resources.Register(command)
	command.Flags().StringVar(&t.BestOf, "best-of", "", "a sweep: train again what its best trial was, as other flags change it; a --script or --image gets its parameters")
	command.Flags().Int64Var(&t.Trial, "trial", -1, "of the sweep of --best-of, instead of its best")
	_ = command.RegisterFlagCompletionFunc("best-of", a.CompleteSweeps())
	command.RunE = func(command *cobra.Command, args []string) error {
		return a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			make := func() (cluster.Job, string, error) { return a.TrainingJob(ctx, c, command, &t, &resources) }
			if flags := command.Flags(); flags.Changed("trial") && t.BestOf == "" {
				return shell.Usage(command, "--trial is one of a sweep: name it with --best-of")
			}
			if script.Given() {
				make = func() (cluster.Job, string, error) {
					j, err := a.ScriptJob(ctx, c, command, &script, &t, &resources, job.DryRun, args)
					return j, ".", err
				}
			} else if err := script.Alone(command); err != nil {
				return err
			}
			j, folder, err := make()
			if err != nil {
				return err
			}
			if err := job.Apply(command, &j); err != nil {
				return err
			}
			if job.DryRun {
				return a.DryRun(ctx, c, j, folder)
			}
			if j, err = a.UploadInputs(ctx, c, j, folder); err != nil {
				return err
			}
			return a.SubmitAndWait(ctx, c, j, job.Detach || j.Held)
		})(command, args)
	}
	return command
}
