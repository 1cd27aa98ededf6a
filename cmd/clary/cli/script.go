package cli

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/training"
)

// scriptFlags are those of a training script.
type scriptFlags struct {
	entry, source, requirements, python string
	hyperparameters, channels, env      []string
	secrets, metrics                    []string
	channelOptions                      []string
	framework                           string
	instances                           taskRange
	isolated                            bool
	image                               imageFlags
}

// given reports whether there is a script or an image to run, and not a network.
func (f *scriptFlags) given() bool { return f.entry != "" || f.image.image != "" }

// maxRequirements is the most that a requirements file may hold, in bytes.
const maxRequirements = cluster.MaxRequirements

func (f *scriptFlags) register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.entry, "script", "", "a training script to run instead of a network: .py, .sh or a program")
	flags.StringVar(&f.source, "source", "", "folder of its code, without what .gitignore names (default: the script alone)")
	flags.StringVar(&f.requirements, "requirements", "", "requirements.txt to install, once on each node")
	flags.StringVar(&f.python, "python", "", "Python interpreter on the node (default \"python3\")")
	flags.StringArrayVar(&f.hyperparameters, "hyperparameter", nil, "NAME=VALUE, given to the script as --NAME VALUE and SM_HP_NAME")
	flags.StringArrayVar(&f.channels, "channel", nil, "data for the script beside --data, as CHANNEL=s3://... or CHANNEL=PATH, which is uploaded")
	flags.StringArrayVar(&f.channelOptions, "channel-option", nil, channelOptionHelp)
	flags.StringArrayVarP(&f.env, "env", "e", nil, "variable of the script's environment, as KEY=VALUE, or KEY to pass your own on")
	flags.StringVar(&f.framework, "framework", "", "how instances of the script find each other: torch, or hosts for any other")
	f.instances.register(flags, "instances", "n", "how many of the script to start together: a number, or 2..8 for as many as there is room for")
	flags.BoolVar(&f.isolated, "network-isolation", false, "cut the script off from every network")
	flags.StringArrayVar(&f.secrets, "secret", nil, secretHelp)
	flags.StringArrayVar(&f.metrics, "metric", nil, metricHelp)
	f.image.register(command)
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

// alone refuses a script's flags where there is no script.
func (f *scriptFlags) alone(command *cobra.Command) error {
	for _, name := range scriptOnly {
		if command.Flags().Changed(name) {
			return usage(command, "--%s is for a script or an image: name it with --script or --image", name)
		}
	}
	return f.noSource(command)
}

func (f *scriptFlags) noSource(command *cobra.Command) error {
	for _, name := range sourceOnly {
		if command.Flags().Changed(name) {
			return usage(command, "--%s is for a script: name it with --script", name)
		}
	}
	return nil
}

// scriptJob is the job that the flags describe, with its code uploaded unless it is a dry
// run.
func (a *App) scriptJob(ctx context.Context, c *client.Client, command *cobra.Command, f *scriptFlags, t *trainFlags, resources *resourceFlags, dryRun bool, args []string) (cluster.Job, error) {
	for _, name := range notForScript {
		if command.Flags().Changed(name) {
			return cluster.Job{}, usage(command, "--%s is for a network: give the script its own after --, or by --hyperparameter", name)
		}
	}
	s, err := a.scriptSpec(f, t, args)
	if err == nil && t.bestOf != "" {
		err = takeParameters(ctx, c, &s, t.bestOf, t.trial)
	}
	if err == nil {
		err = resources.apply(command, &s)
	}
	if err == nil {
		err = f.image.apply(ctx, a, c, command, &s, dryRun)
	}
	switch {
	case err != nil:
	case s.Script == nil:
		err = f.noSource(command)
	default:
		s.Script.Entry, s.Script.Source, err = a.packScript(ctx, c, f, dryRun)
	}
	if err != nil {
		return cluster.Job{}, err
	}
	return programJob(s)
}

func (a *App) scriptSpec(f *scriptFlags, t *trainFlags, args []string) (training.Spec, error) {
	s := training.Spec{
		Instances: f.instances.most, MinInstances: f.instances.least, Framework: cluster.Framework(f.framework), NetworkIsolation: f.isolated, Output: t.output,
	}
	env, err := a.environment(f.env)
	if err != nil {
		return s, err
	}
	if f.entry != "" {
		s.Script = &training.Script{Python: f.python, Arguments: args, Env: env}
	} else {
		s.Program = &training.Program{Command: args, Env: env}
	}
	for channel, data := range map[string]string{"train": t.data, "validation": t.validation} {
		if data == "" {
			continue
		}
		f.channels = append(f.channels, channel+"="+data)
	}
	if s.Inputs, err = channelInputs("--channel", f.channels, f.channelOptions); err != nil {
		return s, err
	}
	if s.Metrics, err = metricDefinitions(f.metrics); err != nil {
		return s, err
	}
	if s.Secrets, err = secretRefs(f.secrets); err != nil {
		return s, err
	}
	values, err := pairs("--hyperparameter", f.hyperparameters)
	if err != nil {
		return s, err
	}
	s.Hyperparameters = hyperparameters(values)
	if f.requirements != "" {
		s.Script.Requirements, err = readRequirements(f.requirements)
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

func readRequirements(name string) (string, error) {
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
