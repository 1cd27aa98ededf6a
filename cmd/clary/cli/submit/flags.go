package submit

import (
	"encoding/json"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload/training"
)

// MetricHelp says how figures are read from logs.
const MetricHelp = "find a metric in what it writes: NAME=REGEX, whose first group is the number, like 'loss=loss: (\\S+)'"

// MetricDefinitions reads NAME=REGEX.
func MetricDefinitions(texts []string) ([]training.Metric, error) {
	var metrics []training.Metric
	for _, text := range texts {
		name, regex, found := strings.Cut(text, "=")
		if !found || name == "" || regex == "" {
			return nil, fault.New(fault.Invalid, "--metric: %q is not NAME=REGEX, like 'loss=loss: (\\S+)'", text)
		}
		metrics = append(metrics, training.Metric{Name: name, Regex: regex})
	}
	return metrics, nil
}

// ResourceFlags are what one task is promised.
type ResourceFlags struct {
	cores, memory, disk string
	grace               string
	gpus, gpuModel      string
	gpuMemory, mig      string
	nodeLabels          []string
	placement           placementFlags
}

// Register adds the flags to a command.
func (f *ResourceFlags) Register(command *cobra.Command) {
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

// ResourceFlagNames are those that register makes.
var ResourceFlagNames = []string{"cores", "memory", "disk", "grace", "gpus", "gpu-model", "gpu-memory", "mig", "on", "node-constraint", "affinity", "anti-affinity", "tolerate", "topology", "spread", "pack"}

// Apply writes the flags that were set over a spec.
func (f *ResourceFlags) Apply(command *cobra.Command, spec *training.Spec) error {
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
	labels, err := shell.Pairs("--on", f.nodeLabels)
	if labels != nil {
		spec.Labels = labels
	}
	return err
}

// ProgramName is what a job without a name is called after.
func ProgramName(spec training.Spec) string {
	if spec.Program != nil && len(spec.Program.Command) > 0 {
		return filepath.Base(spec.Program.Command[0])
	}
	name, _, _ := strings.Cut(path.Base(spec.Image), ":")
	return strings.TrimSuffix(name, ".tar")
}

// ProgramJob writes a spec that runs a program: the network's fields, which have no
// meaning then, are left out.
func ProgramJob(spec training.Spec) (cluster.Job, error) {
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

// Environment reads --env flags: KEY=VALUE, or KEY with the value that it has here.
func (a App) Environment(texts []string) (map[string]string, error) {
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

// SecretHelp says what --secret takes.
const SecretHelp = "give it a secret of its queue: NAME=VARIABLE, or NAME[:FILE] as a file below /run/secrets"

// SecretRefs reads --secret flags.
func SecretRefs(texts []string) ([]training.Secret, error) {
	var secrets []training.Secret
	for _, text := range texts {
		name, variable, asVariable := strings.Cut(text, "=")
		if asVariable {
			if name == "" || variable == "" {
				return nil, fault.New(fault.Invalid, "--secret: %q is not NAME=VARIABLE", cluster.Clip(text))
			}
			secrets = append(secrets, training.Secret{Name: name, Env: variable})
			continue
		}
		name, file, _ := strings.Cut(text, ":")
		secrets = append(secrets, training.Secret{Name: name, File: file})
	}
	return secrets, nil
}

// NotInNames is what a name cannot have.
var NotInNames = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// JobFlags are what every way of making a job has in common.
type JobFlags struct {
	name        string
	queue       string
	priority    int32
	labels      []string
	maxRuntime  string
	retries     int32
	backoff     string
	only, never []int32
	model       string
	preemptible bool
	hold        bool
	Detach      bool
	DryRun      bool
}

// Register adds the flags to a command.
func (f *JobFlags) Register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.name, "name", "", "name of the job; one is made up if it is left out")
	flags.StringVar(&f.queue, "queue", "", "queue to wait in (default \"default\")")
	flags.Int32Var(&f.priority, "priority", 0, "higher goes first within the queue, from -1000 to 1000")
	flags.StringSliceVar(&f.labels, "label", nil, "your own words for finding it again, as key=value")
	flags.StringVar(&f.maxRuntime, "max-runtime", "", "stop it after so long, e.g. 90s, 2h, 1d")
	flags.Int32Var(&f.retries, "retries", 0, "restarts after a task failed; lost nodes do not count")
	flags.StringVar(&f.backoff, "backoff", "", "wait before the first restart, e.g. 30s; doubles each time, up to 10m (default 0s)")
	flags.Int32SliceVar(&f.only, "retry-only", nil, "exit codes to try again, others not")
	flags.Int32SliceVar(&f.never, "retry-never", nil, "exit codes not to try again")
	flags.BoolVar(&f.preemptible, "preemptible", true, "=false: once it runs it makes no room for others")
	flags.BoolVar(&f.hold, "hold", false, "let it wait until clary release")
	flags.BoolVarP(&f.Detach, "detach", "d", false, "do not wait for it")
	flags.BoolVar(&f.DryRun, "dry-run", false, "say what would be placed where, and submit nothing")
}

// BecomesModel adds the flag of jobs that make a model.
func (f *JobFlags) BecomesModel(command *cobra.Command) {
	command.Flags().StringVar(&f.model, "register", "", "the model in the registry that it becomes a version of; see clary models")
}

// Apply writes the flags that were set over a job.
func (f *JobFlags) Apply(command *cobra.Command, job *cluster.Job) error {
	changed := command.Flags().Changed
	if changed("name") {
		job.Name = f.name
	}
	if changed("queue") {
		job.Queue = f.queue
	}
	if changed("priority") {
		job.Priority = f.priority
	}
	if changed("retries") {
		job.Retry.Limit = f.retries
	}
	if changed("backoff") {
		d, err := quantity.ParseDuration(f.backoff)
		if err != nil {
			return fault.New(fault.Invalid, "--backoff: %w", err)
		}
		job.Retry.Backoff = d.Std()
	}
	if changed("retry-only") {
		job.Retry.Only = f.only
	}
	if changed("retry-never") {
		job.Retry.Never = f.never
	}
	if changed("register") {
		job.Register = f.model
	}
	if changed("preemptible") {
		job.NonPreemptible = !f.preemptible
	}
	if changed("hold") {
		job.Held = f.hold
	}
	if changed("max-runtime") {
		d, err := quantity.ParseDuration(f.maxRuntime)
		if err != nil {
			return fault.New(fault.Invalid, "--max-runtime: %w", err)
		}
		job.MaxRuntime = d.Std()
	}
	labels, err := shell.Pairs("--label", f.labels)
	if labels != nil {
		job.Labels = labels
	}
	return err
}
