package data

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/processing"
	"github.com/clary-ml/clary/workload/training"
)

// processFlags are those of a processing job.
type processFlags struct {
	job       submit.JobFlags
	resources submit.ResourceFlags
	image     submit.ImageFlags
	script    submit.ScriptFlags // its entry, source, requirements and python

	file, steps            string
	inputs, inputOptions   []string
	outputs, outputOptions []string
	env, secrets, metrics  []string
	framework, cluster     string
	instances              int32
	continuous, isolated   bool
	profile                bool
}

func (f *processFlags) register(a app, command *cobra.Command) {
	f.job.Register(command)
	f.resources.Register(command)
	f.image.Register(command)
	flags := command.Flags()
	flags.SetInterspersed(false)
	// --output is what every other command calls its format.
	flags.StringVarP(&a.Format, "format", "o", "table", "table, json or yaml")
	flags.StringVarP(&f.file, "file", "f", "", "a job file of kind processing; other flags change what it says")
	flags.StringVar(&f.steps, "steps", "", "a plan of ready-made steps, as clary prepare -f takes it; - is standard input")
	flags.BoolVar(&f.profile, "profile", false, "write a page of what is in the input, profile.html, to the output")
	flags.StringVar(&f.script.Entry, "script", "", "a script to run: .py, .sh or a program; what stands after -- is given to it")
	flags.StringVar(&f.script.Source, "source", "", "folder of its code, without what .gitignore names (default: the script alone)")
	flags.StringVar(&f.script.Requirements, "requirements", "", "requirements.txt to install, once on each node")
	flags.StringVar(&f.script.Python, "python", "", "Python interpreter on the node (default \"python3\")")
	flags.StringArrayVar(&f.inputs, "input", nil, "data for it, as s3://..., PATH, which is uploaded, or NAME=either; see below for its folder")
	flags.StringArrayVar(&f.inputOptions, "input-option", nil, "how an input is read, as NAME=OPTION,...: sharded, fast_file, gzip, manifest, path:FOLDER")
	flags.StringArrayVar(&f.outputs, "output", nil, "where what it writes goes, as s3://... or NAME=s3://...; NAME= keeps it with the job alone")
	flags.StringArrayVar(&f.outputOptions, "output-option", nil, "how an output is kept, as NAME=OPTION,...: continuous, path:FOLDER")
	flags.BoolVar(&f.continuous, "continuous", false, "bring files of all outputs to their addresses as soon as they are whole, not at the end")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "variable of its environment, as KEY=VALUE, or KEY to pass your own on")
	flags.Int32VarP(&f.instances, "instances", "n", 1, "how many to start together")
	flags.StringVar(&f.cluster, "cluster", "", "ray, dask or spark: start its cluster over the instances, and run the script on the first against it")
	flags.StringVar(&f.framework, "framework", "", "how instances find each other: torch, or hosts for any other")
	flags.BoolVar(&f.isolated, "network-isolation", false, "cut it off from every network")
	flags.StringArrayVar(&f.secrets, "secret", nil, submit.SecretHelp)
	flags.StringArrayVar(&f.metrics, "metric", nil, submit.MetricHelp)
	_ = command.MarkFlagFilename("file", "yaml", "yml", "json")
	_ = command.MarkFlagFilename("script", "py", "sh")
	_ = command.MarkFlagDirname("source")
	_ = command.MarkFlagFilename("requirements", "txt")
	_ = command.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"s3://"}, cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp))
}

func (a app) processCommand() *cobra.Command {
	var f processFlags
	command := &cobra.Command{
		Use:   "process [flags] [-- ARGUMENT...]",
		Short: "Make data of data: run a script, image or command over inputs and outputs",
		Long: "Run a script, an image or a command over data of the object store, show what it writes, and exit as it did.\n" +
			"Ctrl-C cancels the job and waits for its end; --detach leaves it alone instead.\n\n" +
			"It finds the one input in /opt/ml/processing/input, several in /opt/ml/processing/input/NAME, and leaves the one output\n" +
			"in /opt/ml/processing/output, several in /opt/ml/processing/output/NAME. When all instances have succeeded their files\n" +
			"are copied to the outputs' addresses. What it writes to /opt/ml/output/message is shown by clary job.\n\n" +
			"Every instance gets the whole of an input, or with --input-option NAME=sharded its share of the objects.\n" +
			"-o, --format says how the ended job is shown: table, json or yaml.",
		Example: `  clary process --script prep.py --input s3://data/raw/ --output s3://data/clean/
  clary process --script prep.py --input raw=churn.csv --output train=s3://data/train/ --output test=s3://data/test/ -- --ratio 0.2
  clary process --script shard.py --instances 4 --input s3://data/raw/ --input-option input=sharded --output s3://data/clean/
  clary process --image team/spark-prep:3 --input s3://data/raw/ --output s3://data/clean/ -- --day 2026-11-26
  clary process --input s3://data/raw/ --output s3://data/clean/ -- sh -c 'sort $SAGEMAKER_BASE_DIR/processing/input/* > $SAGEMAKER_BASE_DIR/processing/output/all'
  clary process --steps plan.yaml --profile --input s3://data/churn.csv --output s3://data/prepared/
  clary process --cluster dask --instances 4 --script etl.py --requirements requirements.txt --output s3://data/clean/
  clary process -f prep.yaml --instances 4 --detach`,
	}
	f.register(a, command)
	command.RunE = func(command *cobra.Command, args []string) error {
		return a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			j, folder, err := a.processingJob(ctx, c, command, &f, args)
			if err != nil {
				return err
			}
			if err := f.job.Apply(command, &j); err != nil {
				return err
			}
			return a.runProcessing(ctx, c, j, folder, f.job)
		})(command, args)
	}
	return command
}

// runProcessing submits the job and stays with it. People see what it writes, programs the job when
// it has ended.
func (a app) runProcessing(ctx context.Context, c *client.Client, j cluster.Job, folder string, flags submit.JobFlags) error {
	if flags.DryRun {
		return a.DryRun(ctx, c, j, folder)
	}
	j, err := a.UploadInputs(ctx, c, j, folder)
	if err != nil {
		return err
	}
	detach := flags.Detach || j.Held
	if detach || !a.ForPeople() {
		return a.SubmitAndWait(ctx, c, j, detach)
	}
	if err := a.RunJob(ctx, c, j, flags); err != nil {
		return err
	}
	view, err := c.Job(ctx, j.Name)
	if err != nil {
		return err
	}
	a.noteOutputs(view)
	return nil
}

// noteOutputs tells where what a processing job has made is, and what it said of its end.
func (a app) noteOutputs(view client.JobView) {
	var spec processing.Spec
	if json.Unmarshal(view.Job.Spec, &spec) != nil || view.Publication == nil {
		return
	}
	for _, output := range view.Publication.Outputs {
		at := output.URI
		name := output.Name[strings.LastIndexByte(output.Name, '/')+1:]
		if to := spec.Outputs[name].URI; to != "" {
			at = to
		}
		a.Note("%s: %s at %s", output.Name, shell.Amount(output), at)
	}
	if message := shell.ExitMessage(view); message != "" {
		a.Note("%s: %s", view.Job.Name, shell.OneLine(message))
	}
	if view.Job.Reason != "" {
		a.Note("%s: %s", view.Job.Name, shell.OneLine(view.Job.Reason))
	}
}

// notBesideFile are flags that say what to run.
var notBesideFile = []string{
	"steps", "profile", "script", "source", "requirements", "python", "image", "entrypoint", "container-network", "read-only-root", "env", "framework", "cluster", "network-isolation",
	"secret", "metric",
}

// processingJob is the job that the flags describe, or the file with what flags change. Paths of
// its inputs are relative to the folder.
func (a app) processingJob(ctx context.Context, c *client.Client, command *cobra.Command, f *processFlags, args []string) (cluster.Job, string, error) {
	j, folder := cluster.Job{Kind: cluster.KindProcessing}, "."
	var s processing.Spec
	var err error
	if f.file == "" {
		s, err = a.processingSpec(ctx, c, command, f, args)
	} else {
		j, s, err = a.processingFile(command, f, args)
		folder = submit.FolderOf(f.file)
	}
	if err != nil {
		return j, "", err
	}
	if f.file == "" || command.Flags().Changed("instances") {
		s.Instances = f.instances
	}
	if err := f.apply(command, &s); err != nil {
		return j, "", err
	}
	if j.Spec, err = json.Marshal(s); err != nil {
		return j, "", err
	}
	if j.Name == "" && !command.Flags().Changed("name") {
		j.Name = submit.FreshName(processingName(s))
	}
	return j, folder, nil
}

func processingName(s processing.Spec) string {
	if s.Steps != nil || s.Profile {
		return "steps"
	}
	if s.Script != nil {
		return strings.TrimSuffix(filepath.Base(s.Script.Entry), filepath.Ext(s.Script.Entry))
	}
	return submit.ProgramName(training.Spec{Program: s.Program, Image: s.Image})
}

// processingFile reads a job file.
func (a app) processingFile(command *cobra.Command, f *processFlags, args []string) (cluster.Job, processing.Spec, error) {
	var s processing.Spec
	for _, name := range notBesideFile {
		if command.Flags().Changed(name) {
			return cluster.Job{}, s, shell.Usage(command, "--%s goes without -f: change it in %s", name, f.file)
		}
	}
	if len(args) > 0 {
		return cluster.Job{}, s, shell.Usage(command, "%q goes without -f: change the arguments in %s", args[0], f.file)
	}
	j, err := a.ReadJobFile(f.file)
	if err != nil {
		return j, s, err
	}
	if j.Kind != cluster.KindProcessing {
		return j, s, fault.New(fault.Invalid, "%s is a job of kind %s: submit it with clary submit -f", f.file, j.Kind)
	}
	if err := json.Unmarshal(j.Spec, &s); err != nil {
		return j, s, fault.New(fault.Invalid, "%s: %w", f.file, err)
	}
	return j, s, nil
}

// processingSpec is what to run, with code and image uploaded unless it is a dry run.
func (a app) processingSpec(ctx context.Context, c *client.Client, command *cobra.Command, f *processFlags, args []string) (processing.Spec, error) {
	if f.steps != "" || f.profile {
		return a.stepsSpec(command, f, args)
	}
	if f.script.Entry == "" {
		if err := f.script.NoSource(command); err != nil {
			return processing.Spec{}, err
		}
		if f.image.Image == "" && len(args) == 0 {
			return processing.Spec{}, shell.Usage(command, "there is nothing to run: name a --script, an --image, --steps, a job file with -f, or a command after --")
		}
	}
	env, err := a.Environment(f.env)
	if err != nil {
		return processing.Spec{}, err
	}
	t := training.Spec{Framework: cluster.Framework(f.framework), NetworkIsolation: f.isolated}
	if t.Metrics, err = submit.MetricDefinitions(f.metrics); err != nil {
		return processing.Spec{}, err
	}
	if t.Secrets, err = submit.SecretRefs(f.secrets); err != nil {
		return processing.Spec{}, err
	}
	switch {
	case f.script.Entry != "":
		t.Script = &training.Script{Python: f.script.Python, Arguments: args, Env: env}
		if f.script.Requirements != "" {
			if t.Script.Requirements, err = submit.ReadRequirements(f.script.Requirements); err != nil {
				return processing.Spec{}, err
			}
		}
	case len(args) > 0 || len(env) > 0:
		t.Program = &training.Program{Command: args, Env: env}
	}
	if err := f.image.Apply(ctx, a.App, c, command, &t, f.job.DryRun); err != nil {
		return processing.Spec{}, err
	}
	if t.Script != nil {
		if t.Script.Entry, t.Script.Source, err = a.PackScript(ctx, c, &f.script, f.job.DryRun); err != nil {
			return processing.Spec{}, err
		}
	}
	return processing.Spec{
		Program: t.Program, Script: t.Script, Image: t.Image, Entrypoint: t.Entrypoint, ContainerNetwork: t.ContainerNetwork, ReadOnlyRoot: t.ReadOnlyRoot,
		Framework: t.Framework, Cluster: cluster.Engine(f.cluster), NetworkIsolation: t.NetworkIsolation, Metrics: t.Metrics, Secrets: t.Secrets,
	}, nil
}

// notBesideSteps are flags of code.
var notBesideSteps = []string{
	"script", "source", "requirements", "python", "image", "entrypoint", "container-network", "read-only-root", "env", "framework", "cluster", "secret", "metric", "instances",
}

// stepsSpec are ready-made steps.
func (a app) stepsSpec(command *cobra.Command, f *processFlags, args []string) (processing.Spec, error) {
	for _, name := range notBesideSteps {
		if command.Flags().Changed(name) {
			return processing.Spec{}, shell.Usage(command, "--%s is for code of your own, and --steps and --profile need none", name)
		}
	}
	if len(args) > 0 {
		return processing.Spec{}, shell.Usage(command, "%q is for code of your own, and --steps and --profile need none", args[0])
	}
	s := processing.Spec{Profile: f.profile, NetworkIsolation: f.isolated}
	if f.steps == "" {
		return s, nil
	}
	plan, err := a.planOf(preparation{file: f.steps})
	if err != nil {
		return s, err
	}
	s.Steps = &plan
	return s, plan.Validate()
}

// apply writes over a spec what may also stand beside a file: resources, inputs and outputs.
func (f *processFlags) apply(command *cobra.Command, s *processing.Spec) error {
	t := training.Spec{Resources: s.Resources, Disk: s.Disk, Grace: s.Grace, Labels: s.Labels, Placement: s.Placement}
	if err := f.resources.Apply(command, &t); err != nil {
		return err
	}
	s.Resources, s.Disk, s.Grace, s.Labels, s.Placement = t.Resources, t.Disk, t.Grace, t.Labels, t.Placement
	if err := f.applyInputs(s); err != nil {
		return err
	}
	return f.applyOutputs(s)
}
