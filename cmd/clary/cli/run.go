package cli

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload/training"
)

// resourceFlags are what one task is promised.
type resourceFlags struct {
	cores, memory, disk string
	grace               string
	gpus, gpuModel      string
	gpuMemory, mig      string
	nodeLabels          []string
	placement           placementFlags
}

func (f *resourceFlags) register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.cores, "cores", "", "processor cores of each task, e.g. 2, 0.5 (default 1)")
	flags.StringVar(&f.memory, "memory", "", "memory of each task, e.g. 512MiB, 2GiB (default by the work)")
	flags.StringVar(&f.disk, "disk", "", "most that each task may write on its node's disk, e.g. 20GiB (default: its agent's --task-disk)")
	flags.StringVar(&f.grace, "grace", "", "time between SIGTERM and SIGKILL, e.g. 30s, 10m (default 2m)")
	flags.StringVar(&f.gpus, "gpus", "", "GPUs of each task: 2, or a share of one such as 0.25, or with --mig a number of slots")
	flags.StringVar(&f.gpuModel, "gpu-model", "", "only GPUs of this model, or of one of several, e.g. A100,H100")
	flags.StringVar(&f.gpuMemory, "gpu-memory", "", "so much memory of one GPU, which others may share, e.g. 8GiB")
	flags.StringVar(&f.mig, "mig", "", "slots of GPUs that are partitioned, of this MIG profile, e.g. 1g.10gb")
	flags.StringSliceVar(&f.nodeLabels, "on", nil, "only on nodes with this label, as key=value")
	f.placement.register(command)
}

// resourceFlagNames are those that register makes.
var resourceFlagNames = []string{"cores", "memory", "disk", "grace", "gpus", "gpu-model", "gpu-memory", "mig", "on", "node-constraint", "affinity", "anti-affinity", "tolerate", "topology", "spread", "pack"}

// apply writes the flags that were set over a spec.
func (f *resourceFlags) apply(command *cobra.Command, spec *training.Spec) error {
	changed := command.Flags().Changed
	var err error
	if changed("cores") {
		if spec.Resources.Cores, err = quantity.ParseCores(f.cores); err != nil {
			return fault.New(fault.Invalid, "--cores: %w", err)
		}
	}
	if changed("memory") {
		if spec.Resources.Memory, err = quantity.ParseBytes(f.memory); err != nil {
			return fault.New(fault.Invalid, "--memory: %w", err)
		}
	}
	if changed("disk") {
		if spec.Disk, err = quantity.ParseBytes(f.disk); err != nil {
			return fault.New(fault.Invalid, "--disk: %w", err)
		}
	}
	if changed("grace") {
		if spec.Grace, err = quantity.ParseDuration(f.grace); err != nil {
			return fault.New(fault.Invalid, "--grace: %w", err)
		}
	}
	if changed("gpus") {
		if spec.Resources.GPUs, err = quantity.ParseGPUs(f.gpus); err != nil {
			return fault.New(fault.Invalid, "--gpus: %w", err)
		}
	}
	if changed("gpu-memory") {
		if spec.Resources.GPUMemory, err = quantity.ParseBytes(f.gpuMemory); err != nil {
			return fault.New(fault.Invalid, "--gpu-memory: %w", err)
		}
	}
	if changed("mig") {
		spec.Resources.MIG = f.mig
	}
	if changed("gpu-model") {
		spec.Resources.GPUModel = f.gpuModel
	}
	f.placement.apply(command, &spec.Placement)
	labels, err := pairs("--on", f.nodeLabels)
	if labels != nil {
		spec.Labels = labels
	}
	return err
}

// runFlags are those of a program.
type runFlags struct {
	job                       jobFlags
	resources                 resourceFlags
	image                     imageFlags
	env, inputs, inputOptions []string
	secrets, metrics          []string
	instances                 taskRange
	dir                       string
	checkpoints, isolated     bool
	exclusive                 bool
}

func (f *runFlags) register(command *cobra.Command) {
	f.job.register(command)
	f.job.becomesModel(command)
	f.resources.register(command)
	f.image.register(command)
	flags := command.Flags()
	flags.SetInterspersed(false)
	flags.StringArrayVarP(&f.env, "env", "e", nil, "variable of its environment, as KEY=VALUE, or KEY to pass your own on")
	f.instances.register(flags, "instances", "n", "how many to start together: a number, or 2..8 for as many as there is room for")
	flags.BoolVar(&f.checkpoints, "checkpoints", false, "keep its checkpoints folder in the store, and restore it before a restart (default with --image)")
	flags.BoolVar(&f.exclusive, "exclusive", false, "never run it twice at once: it ends where its node loses the cluster, before it starts elsewhere")
	flags.BoolVar(&f.isolated, "network-isolation", false, "cut it off from every network")
	flags.StringVar(&f.dir, "dir", "", "working folder on the node; the task's own if it is left out")
	flags.StringArrayVar(&f.inputs, "input", nil, "data for it, as CHANNEL=s3://... or CHANNEL=PATH, which is uploaded")
	flags.StringArrayVar(&f.inputOptions, "input-option", nil, channelOptionHelp)
	flags.StringArrayVar(&f.secrets, "secret", nil, secretHelp)
	flags.StringArrayVar(&f.metrics, "metric", nil, metricHelp)
}

// spec is the job that the flags describe, but for its image.
func (f *runFlags) spec(a *App, command *cobra.Command, args []string) (training.Spec, error) {
	spec := training.Spec{Program: &training.Program{Command: args, Dir: f.dir}, Instances: f.instances.most, MinInstances: f.instances.least, NetworkIsolation: f.isolated, Exclusive: f.exclusive}
	if command.Flags().Changed("checkpoints") {
		spec.Checkpoints = &f.checkpoints
	}
	var err error
	if spec.Program.Env, err = a.environment(f.env); err != nil {
		return spec, err
	}
	if spec.Inputs, err = channelInputs("--input", f.inputs, f.inputOptions); err != nil {
		return spec, err
	}
	if spec.Metrics, err = metricDefinitions(f.metrics); err != nil {
		return spec, err
	}
	if spec.Secrets, err = secretRefs(f.secrets); err != nil {
		return spec, err
	}
	return spec, f.resources.apply(command, &spec)
}

func (a *App) runCommand() *cobra.Command {
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
		if f.image.image != "" {
			return nil
		}
		return takes("PROGRAM...")(command, args)
	}
	f.register(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		spec, err := f.spec(a, command, args)
		if err != nil {
			return err
		}
		return a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if err := f.image.apply(ctx, a, c, command, &spec, f.job.dryRun); err != nil {
				return err
			}
			j, err := programJob(spec)
			if err != nil {
				return err
			}
			if err := f.job.apply(command, &j); err != nil {
				return err
			}
			if j.Name == "" {
				j.Name = freshName(programName(spec))
			}
			return a.runJob(ctx, c, j, f.job)
		})(command, args)
	}
	return command
}

// programName is what a job without a name is called after.
func programName(spec training.Spec) string {
	if spec.Program != nil && len(spec.Program.Command) > 0 {
		return filepath.Base(spec.Program.Command[0])
	}
	name, _, _ := strings.Cut(path.Base(spec.Image), ":")
	return strings.TrimSuffix(name, ".tar")
}

// programJob writes a spec that runs a program: the network's fields, which have no
// meaning then, are left out.
func programJob(spec training.Spec) (cluster.Job, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return cluster.Job{}, err
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		return cluster.Job{}, err
	}
	for _, field := range []string{"network", "optimizer", "data", "epochs", "batch"} {
		delete(whole, field)
	}
	text, err = json.Marshal(whole)
	return cluster.Job{Kind: cluster.KindTraining, Spec: text}, err
}

func (a *App) environment(texts []string) (map[string]string, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	variables := map[string]string{}
	for _, text := range texts {
		key, value, given := strings.Cut(text, "=")
		if key == "" {
			return nil, fault.New(fault.Invalid, "--env: %q is not KEY=VALUE or KEY", text)
		}
		if !given {
			value = a.Getenv(key)
		}
		variables[key] = value
	}
	return variables, nil
}

func (a *App) runJob(ctx context.Context, c *client.Client, j cluster.Job, flags jobFlags) error {
	if flags.dryRun {
		return a.dryRun(ctx, c, j, ".")
	}
	j, err := a.uploadInputs(ctx, c, j, ".")
	if err != nil {
		return err
	}
	if flags.detach || flags.hold {
		return a.submitAndWait(ctx, c, j, true)
	}
	name := j.Name
	var view client.JobView
	if _, err = c.Submit(ctx, j); err == nil {
		view, err = a.attend(ctx, c, name)
	}
	if ctx.Err() != nil && !view.Job.State.Ended() {
		view, err = a.cancelAndWait(context.WithoutCancel(ctx), c, name)
		if fault.Is(err, fault.NotFound) { // interrupted before it was submitted
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		return Exitf(ExitInterrupted, "%s %s", name, view.Job.State)
	}
	if err != nil {
		return err
	}
	return a.outcome(view)
}

// attend shows a job's logs, and on the side what it waits for, until it has ended.
func (a *App) attend(ctx context.Context, c *client.Client, name string) (client.JobView, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var logs, waiting sync.WaitGroup
	var logErr error
	logs.Go(func() { logErr = a.showLogs(ctx, c, client.LogRequest{Job: name, Follow: true}, false) })
	placed, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	waiting.Go(func() { a.sayWhatItWaitsFor(placed, c, name) })
	var view client.JobView
	var watchErr error
	for v, err := range c.Watch(ctx, name) {
		if watchErr = err; err == nil {
			view = v
		}
		if view.Job.State != cluster.JobQueued {
			stopWaiting()
		}
	}
	stopWaiting()
	waiting.Wait()
	if watchErr != nil {
		cancel()
	}
	logs.Wait() // they end by themselves once the job has
	if watchErr == nil && logErr != nil && ctx.Err() == nil {
		a.note("clary: the logs ended early: %v", logErr)
	}
	return view, watchErr
}

// sayWhatItWaitsFor tells a person, after a moment, why nothing is to be seen yet, and
// again when the reason changes.
func (a *App) sayWhatItWaitsFor(ctx context.Context, c *client.Client, name string) {
	clock := time.NewTicker(whyEvery)
	defer clock.Stop()
	for said := ""; ; {
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
		_, whys, err := c.Why(ctx, name)
		if err == nil && len(whys) > 0 && whys[0].Summary != said {
			said = whys[0].Summary
			a.note("clary: %s waits: %s", name, oneLine(said))
		}
	}
}

// cancelTime is how long an interrupted clary run waits for the job's end: the longest
// usual grace, and some.
const cancelTime = 3 * time.Minute

func (a *App) cancelAndWait(ctx context.Context, c *client.Client, name string) (client.JobView, error) {
	a.note("clary: cancelling %s and waiting for its end; Ctrl-C again leaves at once", name)
	ctx, done := context.WithTimeout(ctx, cancelTime)
	defer done()
	if _, err := c.Cancel(ctx, name, "interrupted"); err != nil {
		return client.JobView{}, err
	}
	var view client.JobView
	for v, err := range c.Watch(ctx, name) {
		if errors.Is(err, context.DeadlineExceeded) {
			return view, fault.New(fault.Unready, "%s has not ended after %s: look at clary job %s", name, cancelTime, name)
		}
		if err != nil {
			return view, err
		}
		view = v
	}
	return view, nil
}

// oneOf checks a flag's word.
func oneOf(command *cobra.Command, flag, value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	return usage(command, "--%s: %q is unknown: %s", flag, value, strings.Join(words, ", "))
}
