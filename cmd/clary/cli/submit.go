package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload/jobfile"
)

func (a *App) submitCommand() *cobra.Command {
	var path, name string
	var wait, dryRun bool
	command := &cobra.Command{
		Use:   "submit -f FILE",
		Short: "Submit the job that a YAML or JSON file describes",
		Long: "Submit the job that a YAML or JSON file describes; see clary schema for its fields. Inputs that are\n" +
			"paths, relative to the file, are uploaded first.",
		Example: "  clary submit -f digits.yaml\n  clary submit -f digits.yaml --dry-run\n  jq .epochs=5 job.json | clary submit -f - --wait",
		Args:    takes(),
	}
	flags := command.Flags()
	flags.StringVarP(&path, "file", "f", "", "the job file; - is standard input")
	flags.StringVar(&name, "name", "", "name of the job, in place of the file's")
	flags.BoolVarP(&wait, "wait", "w", false, "wait until the job has ended")
	flags.BoolVar(&dryRun, "dry-run", false, "say what would be placed where, and submit nothing")
	command.RunE = func(command *cobra.Command, args []string) error {
		if path == "" {
			return usage(command, "-f is missing: name a job file, or - for standard input")
		}
		job, err := a.readJobFile(path)
		if err != nil {
			return err
		}
		if name != "" {
			job.Name = name
		}
		return a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if dryRun {
				return a.dryRun(ctx, c, job, folderOf(path))
			}
			if job, err = a.uploadInputs(ctx, c, job, folderOf(path)); err != nil {
				return err
			}
			return a.submitAndWait(ctx, c, job, !wait)
		})(command, args)
	}
	return command
}

func folderOf(path string) string {
	if path == "-" {
		return "."
	}
	return filepath.Dir(path)
}

// readJobFile reads and checks a job file. Inputs may still be paths.
func (a *App) readJobFile(path string) (cluster.Job, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(a.In, jobfile.MaxSize+1))
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return cluster.Job{}, fault.New(fault.Invalid, "read the job file: %w", err)
	}
	job, err := jobfile.Parse(data, a.localKinds())
	if err != nil {
		return cluster.Job{}, fault.New(fault.Invalid, "%s:\n%w", path, err)
	}
	return job, nil
}

// localKinds check specs whose inputs may be paths of this machine.
func (a *App) localKinds() map[cluster.Kind]jobfile.Kind {
	kinds := map[cluster.Kind]jobfile.Kind{}
	for name, kind := range a.Kinds {
		check := kind.Check
		kind.Check = func(spec []byte) cluster.Problems {
			inputs, _ := localInputs(spec)
			for channel := range inputs {
				inputs[channel] = uploadsPrefix + "placeholder"
			}
			if replaced, err := setInputs(spec, inputs); err == nil {
				spec = replaced
			}
			if name == cluster.KindEndpoint {
				spec = placeholders(spec)
			}
			return check(spec)
		}
		kinds[name] = kind
	}
	return kinds
}

// placeholders puts addresses in place of models that are not: they get theirs before the endpoint is
// submitted.
func placeholders(spec []byte) []byte {
	replaced, err := mapModels(spec, func(model string) (string, error) {
		if model == "" || strings.Contains(model, "://") {
			return model, nil
		}
		return uploadsPrefix + "placeholder", nil
	})
	if err != nil {
		return spec
	}
	return replaced
}

// freshName is a name that no other job has, made from a word.
func freshName(word string) string {
	word = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, word)
	word = strings.Trim(word[:min(len(word), 48)], "-")
	if word == "" {
		word = "job"
	}
	return word + "-" + strings.ToLower(rand.Text()[:6])
}

// submitAndWait submits a job, says so, and waits for it unless it is detached.
func (a *App) submitAndWait(ctx context.Context, c *client.Client, job cluster.Job, detach bool) error {
	submitted, err := c.Submit(ctx, job)
	if err != nil {
		return err
	}
	name := submitted.Job.Name
	if detach {
		return a.print(jobToJSON(client.JobView{Job: submitted.Job}), func(out io.Writer) error {
			if submitted.Existed {
				fmt.Fprintf(out, "%s was submitted before\n", name)
				return nil
			}
			fmt.Fprintf(out, "%s is submitted; follow it with clary wait %s or clary logs -f %s\n", name, name, name)
			return nil
		})
	}
	return a.wait(ctx, c, name)
}

// dryRun says where the job's tasks would go now, or what they would wait for.
func (a *App) dryRun(ctx context.Context, c *client.Client, job cluster.Job, folder string) error {
	job, err := placeInputs(job, folder)
	if err != nil {
		return err
	}
	answer, err := c.DryRun(ctx, job)
	if err != nil {
		return err
	}
	placed := placementsToJSON(answer)
	value := struct {
		Job        jobJSON     `json:"job"`
		Placements []placeJSON `json:"placements"`
		Whys       []whyJSON   `json:"whys"`
	}{jobToJSON(client.JobView{Job: answer.Job}), placed, whysToJSON(answer.Whys)}
	return a.print(value, func(out io.Writer) error {
		if len(placed) > 0 {
			rows := make([][]string, len(placed))
			for i, p := range placed {
				rows[i] = []string{p.Task, p.Node, cluster.FormatCores(int64(p.Cores * 1000)), cluster.FormatBytes(p.Memory), p.devices()}
			}
			if err := table(out, []string{"task", "node", "cores", "memory", "devices"}, rows); err != nil {
				return err
			}
		}
		for _, why := range answer.Whys {
			showWhy(out, why)
		}
		a.note("nothing was submitted: this was a dry run")
		return nil
	})
}

type placeJSON struct {
	Task    string     `json:"task"`
	Node    string     `json:"node"`
	Cores   float64    `json:"cores"`
	Memory  int64      `json:"memory"`
	Devices []string   `json:"devices,omitempty"`
	Shares  []partJSON `json:"shares,omitempty"`
}

// devices names the devices, and what of them is given in parts.
func (p placeJSON) devices() string {
	names := slices.Clone(p.Devices)
	for _, part := range p.Shares {
		names = append(names, part.text()+" of "+part.UUID)
	}
	return strings.Join(names, " ")
}

// placementsToJSON names the task of each allocation: they come in the order of the
// gang's roles and their indexes.
func placementsToJSON(answer client.Submission) []placeJSON {
	out := []placeJSON{}
	gangs := map[string]cluster.Gang{}
	for _, gang := range answer.Gangs {
		gangs[gang.ID()] = gang
	}
	for _, placement := range answer.Placements {
		var names []string
		for _, role := range gangs[placement.Gang].Roles {
			for index := range role.Count {
				names = append(names, fmt.Sprintf("%s-%d", role.Name, index))
			}
		}
		for i, allocation := range placement.Allocations {
			place := placeJSON{Task: placement.Gang, Node: allocation.Node, Cores: float64(allocation.Resources.MilliCPU) / 1000, Memory: allocation.Resources.Memory, Devices: allocation.Resources.Devices, Shares: partsToJSON(allocation.Resources.Shares, "")}
			if i < len(names) {
				place.Task = names[i]
			}
			out = append(out, place)
		}
	}
	return out
}

func (a *App) schemaCommand() *cobra.Command {
	names := sortedKeys(a.Kinds)
	return &cobra.Command{
		Use:     "schema [KIND]",
		Short:   "Print the JSON Schema of a job file",
		Example: "  clary schema\n  clary schema training > training.schema.json",
		Args:    takes("[KIND]"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return kindTexts(names), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			name := cluster.KindTraining
			if len(args) > 0 {
				name = cluster.Kind(args[0])
			}
			kind, known := a.Kinds[name]
			if !known {
				return fault.New(fault.Invalid, "kind %q is unknown: there is %s", name, strings.Join(kindTexts(names), ", "))
			}
			text, err := jobfile.Schema(name, kind)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.Out, "%s\n", text)
			return err
		},
	}
}

func kindTexts(kinds []cluster.Kind) []string {
	texts := make([]string, len(kinds))
	for i, kind := range kinds {
		texts[i] = string(kind)
	}
	return texts
}

// jobFlags are what every way of making a job has in common.
type jobFlags struct {
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
	detach      bool
	dryRun      bool
}

func (f *jobFlags) register(command *cobra.Command) {
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
	flags.BoolVarP(&f.detach, "detach", "d", false, "do not wait for it")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be placed where, and submit nothing")
}

// becomesModel adds the flag of jobs that make a model.
func (f *jobFlags) becomesModel(command *cobra.Command) {
	command.Flags().StringVar(&f.model, "register", "", "the model in the registry that it becomes a version of; see clary models")
}

// apply writes the flags that were set over a job.
func (f *jobFlags) apply(command *cobra.Command, job *cluster.Job) error {
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
	labels, err := pairs("--label", f.labels)
	if labels != nil {
		job.Labels = labels
	}
	return err
}
