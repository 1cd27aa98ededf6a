package cli

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/workload/training"
)

// trainFlags describe the common case: a network of dense layers over rows of numbers.
type trainFlags struct {
	file       string
	bestOf     string // a sweep
	trial      int64  // of it; -1 is the best
	network    string
	activation string
	dropout    float64
	loss       string
	optimizer  string
	rate       float64

	data, validation string
	transform        string
	fraction         float64
	format           string
	labelColumn      string
	header           bool
	scale            float64
	input            string
	classes          int

	workers       taskRange
	servers       int32
	epochs, batch int
	seed          int64
	target        float64
	output        string
}

func (f *trainFlags) register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "a job file; other flags change what it says")
	flags.StringVar(&f.network, "network", "128", "units of the hidden layers, e.g. 128,64")
	flags.StringVar(&f.activation, "activation", "relu", "of the hidden layers: relu, tanh, sigmoid or none")
	flags.Float64Var(&f.dropout, "dropout", 0, "share of each hidden layer to drop while training")
	flags.StringVar(&f.loss, "loss", spec.CrossEntropy, "cross_entropy, binary_cross_entropy or mse")
	flags.StringVar(&f.optimizer, "optimizer", "adam", "adam, momentum or sgd")
	flags.Float64Var(&f.rate, "rate", 0, "learning rate (default 0.001 for adam, 0.01 for momentum, 0.1 for sgd)")
	flags.StringVar(&f.data, "data", "", "training rows: a file, a folder or s3://bucket/key")
	flags.StringVar(&f.validation, "validation", "", "held-out rows: a file, a folder or s3://bucket/key")
	flags.StringVar(&f.transform, "transform", "", "what the rows went through, for the model to keep, so that it takes raw rows: a folder or file of clary prepare, or s3://\n(default: the one beside prepared data of this machine; none keeps none)")
	flags.Float64Var(&f.fraction, "validation-fraction", 0.1, "share of the training rows to hold out where --validation is not given")
	flags.StringVar(&f.format, "format", spec.FormatCSV, "csv or idx; gzip is recognised")
	flags.StringVar(&f.labelColumn, "label-column", "last", "CSV column of the label: last, first, a number from 0, or a name of the header")
	flags.BoolVar(&f.header, "header", false, "each CSV file begins with a line of column names")
	flags.Float64Var(&f.scale, "scale", 1, "divide every feature by this")
	flags.StringVar(&f.input, "input", "", "shape of a row, e.g. 64 or 1,28,28 (default: read from the CSV data)")
	flags.IntVar(&f.classes, "classes", 0, "how many classes there are (default: read from the CSV data)")
	f.workers.register(flags, "workers", "", "how many compute gradients: a number, or 2..8 for as many as there is room for, more and fewer as it comes and goes")
	flags.Int32Var(&f.servers, "servers", 1, "parameter servers that the weights are split over")
	flags.IntVar(&f.epochs, "epochs", 20, "how often every row is seen")
	flags.IntVar(&f.batch, "batch", 64, "rows of one step, over all workers together")
	flags.Int64Var(&f.seed, "seed", 0, "same seed and number of workers, same model")
	flags.Float64Var(&f.target, "target-accuracy", 0, "stop early at this accuracy on the held-out rows")
	flags.StringVar(&f.output, "to", "", "s3:// prefix to copy the model to")
	_ = command.MarkFlagFilename("file", "yaml", "yml", "json")
}

func (a *App) trainCommand() *cobra.Command {
	var t trainFlags
	var job jobFlags
	var resources resourceFlags
	var script scriptFlags
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
		if script.given() {
			return nil
		}
		return takes()(command, args)
	}
	t.register(command)
	script.register(command)
	job.register(command)
	job.becomesModel(command)
	resources.register(command)
	command.Flags().StringVar(&t.bestOf, "best-of", "", "a sweep: train again what its best trial was, as other flags change it; a --script or --image gets its parameters")
	command.Flags().Int64Var(&t.trial, "trial", -1, "of the sweep of --best-of, instead of its best")
	_ = command.RegisterFlagCompletionFunc("best-of", a.completeSweeps())
	command.RunE = func(command *cobra.Command, args []string) error {
		return a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			make := func() (cluster.Job, string, error) { return a.trainingJob(ctx, c, command, &t, &resources) }
			if flags := command.Flags(); flags.Changed("trial") && t.bestOf == "" {
				return usage(command, "--trial is one of a sweep: name it with --best-of")
			}
			if script.given() {
				make = func() (cluster.Job, string, error) {
					j, err := a.scriptJob(ctx, c, command, &script, &t, &resources, job.dryRun, args)
					return j, ".", err
				}
			} else if err := script.alone(command); err != nil {
				return err
			}
			j, folder, err := make()
			if err != nil {
				return err
			}
			if err := job.apply(command, &j); err != nil {
				return err
			}
			if job.dryRun {
				return a.dryRun(ctx, c, j, folder)
			}
			if j, err = a.uploadInputs(ctx, c, j, folder); err != nil {
				return err
			}
			return a.submitAndWait(ctx, c, j, job.detach || j.Held)
		})(command, args)
	}
	return command
}

// trainingJob is the job that the flags describe, or the file with what flags change.
// Paths of its inputs are relative to the folder.
func (a *App) trainingJob(ctx context.Context, c *client.Client, command *cobra.Command, t *trainFlags, resources *resourceFlags) (cluster.Job, string, error) {
	j, folder := cluster.Job{Kind: cluster.KindTraining}, "."
	var s training.Spec
	var err error
	switch {
	case t.bestOf != "" && t.file != "":
		return j, "", usage(command, "-f goes without --best-of: the sweep says what to train")
	case t.bestOf != "":
		if j, err = bestJob(ctx, c, t.bestOf, t.trial); err != nil {
			return j, "", err
		}
		if err := json.Unmarshal(j.Spec, &s); err != nil {
			return j, "", fault.New(fault.Invalid, "the trial of %s: %w", t.bestOf, err)
		}
		err = t.change(command, &s)
	case t.file != "":
		if j, err = a.readJobFile(t.file); err != nil {
			return j, "", err
		}
		if j.Kind != cluster.KindTraining {
			return j, "", fault.New(fault.Invalid, "%s is a job of kind %s: submit it with clary submit -f", t.file, j.Kind)
		}
		if err := json.Unmarshal(j.Spec, &s); err != nil {
			return j, "", fault.New(fault.Invalid, "%s: %w", t.file, err)
		}
		folder = folderOf(t.file)
		err = t.change(command, &s)
	default:
		if s, err = t.spec(ctx, c, command); err == nil {
			err = a.addTransform(t, &s)
		}
	}
	if err == nil {
		err = resources.apply(command, &s)
	}
	if err != nil {
		return j, "", err
	}
	if s.Program != nil {
		program, err := programJob(s)
		j.Spec = program.Spec
		return j, folder, err
	}
	j.Spec, err = json.Marshal(s)
	return j, folder, err
}

// change writes the flags that were set over a file's spec.
func (t *trainFlags) change(command *cobra.Command, s *training.Spec) error {
	flags := command.Flags()
	for _, fixed := range []string{"network", "activation", "dropout", "loss", "optimizer", "rate", "format", "label-column", "header", "scale", "input", "classes", "validation-fraction", "data", "validation", "transform"} {
		if flags.Changed(fixed) {
			if t.bestOf != "" {
				return usage(command, "--%s goes without --best-of: the trial of %s says it", fixed, t.bestOf)
			}
			return usage(command, "--%s goes without -f: change it in %s", fixed, t.file)
		}
	}
	if flags.Changed("workers") {
		s.MinWorkers, s.Workers = t.workers.least, t.workers.most
	}
	if flags.Changed("servers") {
		s.Servers = t.servers
	}
	if flags.Changed("epochs") {
		s.Epochs = t.epochs
	}
	if flags.Changed("batch") {
		s.Batch = t.batch
	}
	if flags.Changed("seed") {
		s.Seed = t.seed
	}
	if flags.Changed("target-accuracy") {
		s.TargetAccuracy = t.target
	}
	if flags.Changed("to") {
		s.Output = t.output
	}
	return nil
}

// spec is what the flags say, with the shape of the data read from the data.
func (t *trainFlags) spec(ctx context.Context, c *client.Client, command *cobra.Command) (training.Spec, error) {
	if t.data == "" {
		return training.Spec{}, usage(command, "--data is missing: name the training rows, or a job file with -f")
	}
	s := training.Spec{
		Training: spec.Training{
			Data:   spec.Data{Format: t.format, Scale: t.scale},
			Epochs: t.epochs, Batch: t.batch, Seed: t.seed, TargetAccuracy: t.target,
		},
		Workers: t.workers.most, MinWorkers: t.workers.least, Servers: t.servers, Output: t.output,
		Inputs: map[string]training.Input{"train": {URI: t.data}},
	}
	if t.format == spec.FormatCSV {
		s.Data.Label, s.Data.Header = t.column(), t.header
	}
	if t.validation != "" {
		s.Inputs["validation"] = training.Input{URI: t.validation}
	} else {
		s.Data.ValidationFraction = t.fraction
	}
	shape, err := t.shape(ctx, c, command)
	if err != nil {
		return s, err
	}
	s.Data.Classes = shape.names
	if s.Network, err = t.layers(command, shape); err != nil {
		return s, err
	}
	s.Optimizer, err = t.method(command)
	return s, err
}

func (t *trainFlags) column() spec.Column {
	if n, err := strconv.Atoi(t.labelColumn); err == nil {
		return spec.ColumnNumber(n)
	}
	return spec.ColumnNamed(t.labelColumn)
}

// shape is what a network must fit: what the flags say of it, and the data the rest.
func (t *trainFlags) shape(ctx context.Context, c *client.Client, command *cobra.Command) (dataShape, error) {
	given := dataShape{classes: t.classes}
	if t.input != "" {
		for _, text := range strings.Split(t.input, ",") {
			n, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil || n < 1 {
				return given, usage(command, "--input: %q is not a shape such as 64 or 1,28,28", t.input)
			}
			given.input = append(given.input, n)
		}
	}
	if t.loss != spec.CrossEntropy && given.classes == 0 {
		given.classes = 1
	}
	if given.input != nil && given.classes > 0 {
		return given, nil
	}
	if t.format != spec.FormatCSV {
		return given, usage(command, "--input and --classes are needed for data in the format %s", t.format)
	}
	found, err := readShape(ctx, c, t.data, t.column(), t.header)
	if err != nil {
		return given, err
	}
	if given.input != nil {
		found.input = given.input
	}
	if given.classes > 0 {
		found.classes, found.names = given.classes, nil
	}
	return found, nil
}

func (t *trainFlags) layers(command *cobra.Command, shape dataShape) (spec.Network, error) {
	if err := oneOf(command, "loss", t.loss, spec.CrossEntropy, spec.BinaryCrossEntropy, spec.MeanSquaredError); err != nil {
		return spec.Network{}, err
	}
	if err := oneOf(command, "activation", t.activation, spec.ReLU, spec.Tanh, spec.Sigmoid, spec.None); err != nil {
		return spec.Network{}, err
	}
	network := spec.Network{Input: shape.input, Loss: t.loss}
	if len(shape.input) > 1 {
		network.Layers = append(network.Layers, spec.Layer{Flatten: &spec.Flatten{}})
	}
	for _, text := range strings.Split(t.network, ",") {
		units, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || units < 1 {
			return network, usage(command, "--network: %q is not a list of layer sizes such as 128,64", t.network)
		}
		network.Layers = append(network.Layers, spec.Layer{Dense: &spec.Dense{Units: units, Activation: t.activation}})
		if t.dropout > 0 {
			network.Layers = append(network.Layers, spec.Layer{Dropout: &spec.Dropout{Rate: t.dropout}})
		}
	}
	network.Layers = append(network.Layers, spec.Layer{Dense: &spec.Dense{Units: shape.classes}})
	return network, nil
}

func (t *trainFlags) method(command *cobra.Command) (spec.Optimizer, error) {
	rate := func(usual float64) float64 {
		if t.rate != 0 {
			return t.rate
		}
		return usual
	}
	switch t.optimizer {
	case "adam":
		return spec.Optimizer{Adam: &spec.Adam{Rate: rate(0.001)}}, nil
	case "momentum":
		return spec.Optimizer{Momentum: &spec.Momentum{Rate: rate(0.01)}}, nil
	case "sgd":
		return spec.Optimizer{SGD: &spec.SGD{Rate: rate(0.1)}}, nil
	}
	return spec.Optimizer{}, oneOf(command, "optimizer", t.optimizer, "adam", "momentum", "sgd")
}
