package submit

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/workload/training"
)

// TrainFlags describe the common case: a network of dense layers over rows of numbers.
type TrainFlags struct {
	File       string
	BestOf     string // a sweep
	Trial      int64  // of it; -1 is the best
	network    string
	activation string
	dropout    float64
	loss       string
	optimizer  string
	rate       float64

	Data, validation string
	transform        string
	fraction         float64
	format           string
	labelColumn      string
	header           bool
	scale            float64
	input            string
	classes          int

	workers       TaskRange
	servers       int32
	epochs, batch int
	Seed          int64
	target        float64
	output        string
}

// Register adds the flags to a command.
func (f *TrainFlags) Register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVarP(&f.File, "file", "f", "", "a job file; other flags change what it says")
	flags.StringVar(&f.network, "network", "128", "units of the hidden layers, e.g. 128,64")
	flags.StringVar(&f.activation, "activation", "relu", "of the hidden layers: relu, tanh, sigmoid or none")
	flags.Float64Var(&f.dropout, "dropout", 0, "share of each hidden layer to drop while training")
	flags.StringVar(&f.loss, "loss", spec.CrossEntropy, "cross_entropy, binary_cross_entropy or mse")
	flags.StringVar(&f.optimizer, "optimizer", "adam", "adam, momentum or sgd")
	flags.Float64Var(&f.rate, "rate", 0, "learning rate (default 0.001 for adam, 0.01 for momentum, 0.1 for sgd)")
	flags.StringVar(&f.Data, "data", "", "training rows: a file, a folder or s3://bucket/key")
	flags.StringVar(&f.validation, "validation", "", "held-out rows: a file, a folder or s3://bucket/key")
	flags.StringVar(&f.transform, "transform", "", "what the rows went through, for the model to keep, so that it takes raw rows: a folder or file of clary prepare, or s3://\n(default: the one beside prepared data of this machine; none keeps none)")
	flags.Float64Var(&f.fraction, "validation-fraction", 0.1, "share of the training rows to hold out where --validation is not given")
	flags.StringVar(&f.format, "format", spec.FormatCSV, "csv or idx; gzip is recognised")
	flags.StringVar(&f.labelColumn, "label-column", "last", "CSV column of the label: last, first, a number from 0, or a name of the header")
	flags.BoolVar(&f.header, "header", false, "each CSV file begins with a line of column names")
	flags.Float64Var(&f.scale, "scale", 1, "divide every feature by this")
	flags.StringVar(&f.input, "input", "", "shape of a row, e.g. 64 or 1,28,28 (default: read from the CSV data)")
	flags.IntVar(&f.classes, "classes", 0, "how many classes there are (default: read from the CSV data)")
	f.workers.Register(flags, "workers", "", "how many compute gradients: a number, or 2..8 for as many as there is room for, more and fewer as it comes and goes")
	flags.Int32Var(&f.servers, "servers", 1, "parameter servers that the weights are split over")
	flags.IntVar(&f.epochs, "epochs", 20, "how often every row is seen")
	flags.IntVar(&f.batch, "batch", 64, "rows of one step, over all workers together")
	flags.Int64Var(&f.Seed, "seed", 0, "same seed and number of workers, same model")
	flags.Float64Var(&f.target, "target-accuracy", 0, "stop early at this accuracy on the held-out rows")
	flags.StringVar(&f.output, "to", "", "s3:// prefix to copy the model to")
	_ = command.MarkFlagFilename("file", "yaml", "yml", "json")
}

// TrainingJob is the job that the flags describe, or the file with what flags change.
// Paths of its inputs are relative to the folder.
func (a App) TrainingJob(ctx context.Context, c *client.Client, command *cobra.Command, t *TrainFlags, resources *ResourceFlags) (cluster.Job, string, error) {
	j, folder := cluster.Job{Kind: cluster.KindTraining}, "."
	var s training.Spec
	var err error
	switch {
	case t.BestOf != "" && t.File != "":
		return j, "", shell.Usage(command, "-f goes without --best-of: the sweep says what to train")
	case t.BestOf != "":
		if j, err = bestJob(ctx, c, t.BestOf, t.Trial); err != nil {
			return j, "", err
		}
		if err := json.Unmarshal(j.Spec, &s); err != nil {
			return j, "", fault.New(fault.Invalid, "the trial of %s: %w", t.BestOf, err)
		}
		err = t.change(command, &s)
	case t.File != "":
		if j, err = a.ReadJobFile(t.File); err != nil {
			return j, "", err
		}
		if j.Kind != cluster.KindTraining {
			return j, "", fault.New(fault.Invalid, "%s is a job of kind %s: submit it with clary submit -f", t.File, j.Kind)
		}
		if err := json.Unmarshal(j.Spec, &s); err != nil {
			return j, "", fault.New(fault.Invalid, "%s: %w", t.File, err)
		}
		folder = FolderOf(t.File)
		err = t.change(command, &s)
	default:
		if s, err = t.spec(ctx, c, command); err == nil {
			err = a.addTransform(t, &s)
		}
	}
	if err == nil {
		err = resources.Apply(command, &s)
	}
	if err != nil {
		return j, "", err
	}
	if s.Program != nil {
		program, err := ProgramJob(s)
		j.Spec = program.Spec
		return j, folder, err
	}
	j.Spec, err = json.Marshal(s)
	return j, folder, err
}

// change writes the flags that were set over a file's spec.
func (t *TrainFlags) change(command *cobra.Command, s *training.Spec) error {
	flags := command.Flags()
	for _, fixed := range []string{"network", "activation", "dropout", "loss", "optimizer", "rate", "format", "label-column", "header", "scale", "input", "classes", "validation-fraction", "data", "validation", "transform"} {
		if flags.Changed(fixed) {
			if t.BestOf != "" {
				return shell.Usage(command, "--%s goes without --best-of: the trial of %s says it", fixed, t.BestOf)
			}
			return shell.Usage(command, "--%s goes without -f: change it in %s", fixed, t.File)
		}
	}
	if flags.Changed("workers") {
		s.MinWorkers, s.Workers = t.workers.Least, t.workers.Most
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
		s.Seed = t.Seed
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
func (t *TrainFlags) spec(ctx context.Context, c *client.Client, command *cobra.Command) (training.Spec, error) {
	if t.Data == "" {
		return training.Spec{}, shell.Usage(command, "--data is missing: name the training rows, or a job file with -f")
	}
	s := training.Spec{
		Training: spec.Training{
			Data:   spec.Data{Format: t.format, Scale: t.scale},
			Epochs: t.epochs, Batch: t.batch, Seed: t.Seed, TargetAccuracy: t.target,
		},
		Workers: t.workers.Most, MinWorkers: t.workers.Least, Servers: t.servers, Output: t.output,
		Inputs: map[string]training.Input{"train": {URI: t.Data}},
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
	s.Data.Classes = shape.Names
	if s.Network, err = t.layers(command, shape); err != nil {
		return s, err
	}
	s.Optimizer, err = t.method(command)
	return s, err
}

func (t *TrainFlags) column() spec.Column {
	if n, err := strconv.Atoi(t.labelColumn); err == nil {
		return spec.ColumnNumber(n)
	}
	return spec.ColumnNamed(t.labelColumn)
}

// shape is what a network must fit: what the flags say of it, and the data the rest.
func (t *TrainFlags) shape(ctx context.Context, c *client.Client, command *cobra.Command) (transfer.DataShape, error) {
	given := transfer.DataShape{Classes: t.classes}
	if t.input != "" {
		for _, text := range strings.Split(t.input, ",") {
			n, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil || n < 1 {
				return given, shell.Usage(command, "--input: %q is not a shape such as 64 or 1,28,28", t.input)
			}
			given.Input = append(given.Input, n)
		}
	}
	if t.loss != spec.CrossEntropy && given.Classes == 0 {
		given.Classes = 1
	}
	if given.Input != nil && given.Classes > 0 {
		return given, nil
	}
	if t.format != spec.FormatCSV {
		return given, shell.Usage(command, "--input and --classes are needed for data in the format %s", t.format)
	}
	found, err := transfer.ReadShape(ctx, c, t.Data, t.column(), t.header)
	if err != nil {
		return given, err
	}
	if given.Input != nil {
		found.Input = given.Input
	}
	if given.Classes > 0 {
		found.Classes, found.Names = given.Classes, nil
	}
	return found, nil
}

func (t *TrainFlags) layers(command *cobra.Command, shape transfer.DataShape) (spec.Network, error) {
	if err := shell.OneOf(command, "loss", t.loss, spec.CrossEntropy, spec.BinaryCrossEntropy, spec.MeanSquaredError); err != nil {
		return spec.Network{}, err
	}
	if err := shell.OneOf(command, "activation", t.activation, spec.ReLU, spec.Tanh, spec.Sigmoid, spec.None); err != nil {
		return spec.Network{}, err
	}
	network := spec.Network{Input: shape.Input, Loss: t.loss}
	if len(shape.Input) > 1 {
		network.Layers = append(network.Layers, spec.Layer{Flatten: &spec.Flatten{}})
	}
	for _, text := range strings.Split(t.network, ",") {
		units, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || units < 1 {
			return network, shell.Usage(command, "--network: %q is not a list of layer sizes such as 128,64", t.network)
		}
		network.Layers = append(network.Layers, spec.Layer{Dense: &spec.Dense{Units: units, Activation: t.activation}})
		if t.dropout > 0 {
			network.Layers = append(network.Layers, spec.Layer{Dropout: &spec.Dropout{Rate: t.dropout}})
		}
	}
	network.Layers = append(network.Layers, spec.Layer{Dense: &spec.Dense{Units: shape.Classes}})
	return network, nil
}

func (t *TrainFlags) method(command *cobra.Command) (spec.Optimizer, error) {
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
	return spec.Optimizer{}, shell.OneOf(command, "optimizer", t.optimizer, "adam", "momentum", "sgd")
}
