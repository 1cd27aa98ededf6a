package submit

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/training"
)

// ScriptFlags are those of a training script.
type ScriptFlags struct {
	Entry, Source, Requirements, Python string
	Hyperparameters, channels, env      []string
	secrets, metrics                    []string
	channelOptions                      []string
	framework                           string
	instances                           TaskRange
	isolated                            bool
	Image                               ImageFlags
}

// Given reports whether there is a script or an image to run, and not a network.
func (f *ScriptFlags) Given() bool { return f.Entry != "" || f.Image.Image != "" }

// maxRequirements is the most that a requirements file may hold, in bytes.
const maxRequirements = cluster.MaxRequirements

// Register adds the flags to a command.
func (f *ScriptFlags) Register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.Entry, "script", "", "a training script to run instead of a network: .py, .sh or a program")
	flags.StringVar(&f.Source, "source", "", "folder of its code, without what .gitignore names (default: the script alone)")
	flags.StringVar(&f.Requirements, "requirements", "", "requirements.txt to install, once on each node")
	flags.StringVar(&f.Python, "python", "", "Python interpreter on the node (default \"python3\")")
	flags.StringArrayVar(&f.Hyperparameters, "hyperparameter", nil, "NAME=VALUE, given to the script as --NAME VALUE and SM_HP_NAME")
	flags.StringArrayVar(&f.channels, "channel", nil, "data for the script beside --data, as CHANNEL=s3://... or CHANNEL=PATH, which is uploaded")
	flags.StringArrayVar(&f.channelOptions, "channel-option", nil, ChannelOptionHelp)
	flags.StringArrayVarP(&f.env, "env", "e", nil, "variable of the script's environment, as KEY=VALUE, or KEY to pass your own on")
	flags.StringVar(&f.framework, "framework", "", "how instances of the script find each other: torch, or hosts for any other")
	f.instances.Register(flags, "instances", "n", "how many of the script to start together: a number, or 2..8 for as many as there is room for")
	flags.BoolVar(&f.isolated, "network-isolation", false, "cut the script off from every network")
	flags.StringArrayVar(&f.secrets, "secret", nil, SecretHelp)
	flags.StringArrayVar(&f.metrics, "metric", nil, MetricHelp)
	f.Image.Register(command)
	_ = command.MarkFlagFilename("script", "py", "sh")
	_ = command.MarkFlagDirname("source")
	_ = command.MarkFlagFilename("requirements", "txt")
}

// sourceOnly are flags of a script, and scriptOnly those of a script or an image.
var (
	sourceOnly = []string{"source", "requirements", "python"}
	scriptOnly = []string{"hyperparameter", "channel", "channel-option", "env", "framework", "instances", "network-isolation", "entrypoint", "container-network", "secret", "metric"}
)

// notForScript are flags of a network.
var notForScript = []string{
	"file", "network", "activation", "dropout", "loss", "optimizer", "rate", "validation-fraction", "format", "label-column", "header",
	"scale", "input", "classes", "workers", "servers", "epochs", "batch", "seed", "target-accuracy", "transform",
}

// Alone refuses a script's flags where there is no script.
func (f *ScriptFlags) Alone(command *cobra.Command) error {
	for _, name := range scriptOnly {
		if command.Flags().Changed(name) {
			return shell.Usage(command, "--%s is for a script or an image: name it with --script or --image", name)
		}
	}
	return f.NoSource(command)
}

// NoSource refuses flags that are for a script alone.
func (f *ScriptFlags) NoSource(command *cobra.Command) error {
	for _, name := range sourceOnly {
		if command.Flags().Changed(name) {
			return shell.Usage(command, "--%s is for a script: name it with --script", name)
		}
	}
	return nil
}

// ScriptJob is the job that the flags describe, with its code uploaded unless it is a dry
// run.
func (a App) ScriptJob(ctx context.Context, c *client.Client, command *cobra.Command, f *ScriptFlags, t *TrainFlags, resources *ResourceFlags, dryRun bool, args []string) (cluster.Job, error) {
	for _, name := range notForScript {
		if command.Flags().Changed(name) {
			return cluster.Job{}, shell.Usage(command, "--%s is for a network: give the script its own after --, or by --hyperparameter", name)
		}
	}
	s, err := a.scriptSpec(f, t, args)
	if err == nil && t.BestOf != "" {
		err = takeParameters(ctx, c, &s, t.BestOf, t.Trial)
	}
	if err == nil {
		err = resources.Apply(command, &s)
	}
	if err == nil {
		err = f.Image.Apply(ctx, a, c, command, &s, dryRun)
	}
	switch {
	case err != nil:
	case s.Script == nil:
		err = f.NoSource(command)
	default:
		s.Script.Entry, s.Script.Source, err = a.PackScript(ctx, c, f, dryRun)
	}
	if err != nil {
		return cluster.Job{}, err
	}
	return ProgramJob(s)
}

func (a App) scriptSpec(f *ScriptFlags, t *TrainFlags, args []string) (training.Spec, error) {
	s := training.Spec{
		Instances: f.instances.Most, MinInstances: f.instances.Least, Framework: cluster.Framework(f.framework), NetworkIsolation: f.isolated, Output: t.output,
	}
	env, err := a.Environment(f.env)
	if err != nil {
		return s, err
	}
	if f.Entry != "" {
		s.Script = &training.Script{Python: f.Python, Arguments: args, Env: env}
	} else {
		s.Program = &training.Program{Command: args, Env: env}
	}
	for channel, data := range map[string]string{"train": t.Data, "validation": t.validation} {
		if data == "" {
			continue
		}
		f.channels = append(f.channels, channel+"="+data)
	}
	if s.Inputs, err = ChannelInputs("--channel", f.channels, f.channelOptions); err != nil {
		return s, err
	}
	if s.Metrics, err = MetricDefinitions(f.metrics); err != nil {
		return s, err
	}
	if s.Secrets, err = SecretRefs(f.secrets); err != nil {
		return s, err
	}
	values, err := shell.Pairs("--hyperparameter", f.Hyperparameters)
	if err != nil {
		return s, err
	}
	s.Hyperparameters = hyperparameters(values)
	if f.Requirements != "" {
		s.Script.Requirements, err = ReadRequirements(f.Requirements)
	}
	return s, err
}

// hyperparameters reads each value as JSON, and as a text if it is none.
func hyperparameters(values map[string]string) map[string]json.RawMessage {
	if len(values) == 0 {
		return nil
	}
	read := map[string]json.RawMessage{}
	for name, text := range values {
		if json.Valid([]byte(text)) {
			read[name] = json.RawMessage(text)
			continue
		}
		quoted, _ := json.Marshal(text) // a text can always be written
		read[name] = quoted
	}
	return read
}

// ReadRequirements reads a requirements.txt, of bounded size.
func ReadRequirements(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", fault.New(fault.Invalid, "--requirements: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxRequirements+1))
	switch {
	case err != nil:
		return "", fault.New(fault.Invalid, "--requirements: %w", err)
	case len(text) > maxRequirements:
		return "", fault.New(fault.Invalid, "--requirements: %s is larger than %s", name, cluster.FormatBytes(maxRequirements))
	case strings.TrimSpace(string(text)) == "":
		return "", fault.New(fault.Invalid, "--requirements: %s names no package: leave the flag out", name)
	}
	return string(text), nil
}
