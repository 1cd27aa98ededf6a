package tune

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/workload/tuning"
)

// templateFlags describe the training job that each trial is, as clary train's do.
type templateFlags struct {
	train     submit.TrainFlags
	script    submit.ScriptFlags
	resources submit.ResourceFlags
}

func (f *templateFlags) register(command *cobra.Command) {
	f.train.Register(command)
	f.script.Register(command)
	f.resources.Register(command)
}

// searchFlags change a tuning job's file, besides those of jobs.
var searchFlags = []string{
	"file", "sagemaker", "seed", "param", "constraint", "objective", "limit", "try", "warm-start", "sampler", "stopper", "fidelity", "trials", "parallel",
	"max-time", "max-cost", "core-price", "gpu-price", "target", "patience", "max-failed", "noiseless",
	"name", "queue", "priority", "label", "max-runtime", "retries", "backoff", "retry-only", "retry-never", "preemptible", "hold", "detach", "dry-run", "context", "output",
}

// described is a sweep before the search's flags are written over it.
type described struct {
	job    cluster.Job // without its spec
	search tuning.Spec
	trial  json.RawMessage
	folder string // that paths of its inputs are relative to
	inline bool   // the flags alone describe it
}

// tuningJob is the sweep that the flags describe. Paths of its inputs are relative to the
// folder.
func (a app) tuningJob(ctx context.Context, c *client.Client, command *cobra.Command, f *tuneFlags, t *templateFlags, job *submit.JobFlags, args []string) (cluster.Job, string, error) {
	seed := command.Flags().Lookup("seed")
	seeded := seed.Changed
	seed.Changed = false // it is the search's, not the network's
	d, err := a.describe(ctx, c, command, f, t, job.DryRun, args)
	j, s := d.job, d.search
	if err == nil {
		err = f.apply(command, &s)
	}
	if err == nil {
		err = t.fixedToo(command, s)
	}
	if err != nil {
		return j, "", err
	}
	if seeded {
		s.Seed = uint64(t.train.Seed)
	}
	if err := applyJobFlags(command, job, &j, &s); err != nil {
		return j, "", err
	}
	if j.Name == "" {
		j.Name = sweepName(t, args)
	}
	if j.Spec, err = joinSpec(s, d.trial); err != nil {
		return j, "", err
	}
	if problems := a.LocalKinds()[cluster.KindTuning].Check(j.Spec); problems != nil {
		if d.inline {
			problems = inFlags(problems, s)
		}
		return j, "", fault.New(fault.Invalid, "%w", problems)
	}
	return j, d.folder, nil
}

// describe reads a sweep's file, or what is to be tried.
func (a app) describe(ctx context.Context, c *client.Client, command *cobra.Command, f *tuneFlags, t *templateFlags, dryRun bool, args []string) (described, error) {
	d := described{job: cluster.Job{Kind: cluster.KindTuning}, folder: "."}
	path := t.train.File
	file, err := a.tuneFile(path)
	if f.sagemaker != "" {
		path = f.sagemaker
		file, err = a.sageMakerJob(command, path, t)
	}
	switch {
	case err != nil:
		return d, err
	case file.Kind == cluster.KindTuning:
		d.job, d.folder = file, submit.FolderOf(path)
		if d.search, d.trial, err = splitSpec(file.Spec); err != nil {
			return d, err
		}
		if d.trial != nil || f.sagemaker == "" {
			return d, t.refuse(command, path, args)
		}
		var template cluster.Job
		template, d.folder, err = a.template(ctx, c, command, t, dryRun, args)
		d.trial = template.Spec
	case f.study:
		d.inline = true
		err = t.refuse(command, "", args)
	default:
		d.inline = true
		d.job, d.folder, err = a.template(ctx, c, command, t, dryRun, args)
		d.trial = d.job.Spec
		d.job.Kind, d.job.Spec = cluster.KindTuning, nil
	}
	return d, err
}

// sweepName is made from what is tried.
func sweepName(t *templateFlags, args []string) string {
	word := "sweep"
	switch {
	case t.script.Entry != "":
		word = t.script.Entry
	case t.script.Image.Image != "":
		word = t.script.Image.Image
	case len(args) > 0:
		word = args[0]
	case t.train.File != "" && t.train.File != "-":
		word = t.train.File
	case t.train.Data != "":
		word = strings.TrimSuffix(t.train.Data, ".gz")
	}
	word = path.Base(word)
	word = strings.TrimSuffix(word, path.Ext(word))
	return submit.FreshName(word[:min(len(word), cluster.MaxSweepName-8)])
}

// tuneFile reads the file of -f, if there is one.
func (a app) tuneFile(path string) (cluster.Job, error) {
	if path == "" {
		return cluster.Job{}, nil
	}
	file, err := a.ReadJobFile(path)
	if err == nil && file.Kind != cluster.KindTuning && file.Kind != cluster.KindTraining {
		err = fault.New(fault.Invalid, "%s is a job of kind %s: a sweep is of kind tuning, and what it tries of kind training", path, file.Kind)
	}
	return file, err
}

// refuse says no to flags and arguments that describe a training where a file does, or
// nothing.
func (f *templateFlags) refuse(command *cobra.Command, file string, args []string) error {
	changed := ""
	command.Flags().Visit(func(flag *pflag.Flag) {
		inSageMaker := command.Flags().Changed("sagemaker") && slices.Contains(submit.ResourceFlagNames, flag.Name)
		if !slices.Contains(searchFlags, flag.Name) && flag.Name != "study" && !inSageMaker {
			changed = flag.Name
		}
	})
	switch {
	case changed != "" && file != "":
		return shell.Usage(command, "--%s goes without a sweep's file: change it in %s", changed, file)
	case changed != "":
		return shell.Usage(command, "--%s goes without --study: a study runs nothing", changed)
	case len(args) > 0 && file != "":
		return shell.Usage(command, "%q is too much: the trials are described by %s", args[0], file)
	case len(args) > 0:
		return shell.Usage(command, "%q is too much: a study runs nothing", args[0])
	}
	return nil
}

// fixedToo refuses a parameter that a flag has fixed.
func (f *templateFlags) fixedToo(command *cobra.Command, s tuning.Spec) error {
	fixed, err := shell.Pairs("--hyperparameter", f.script.Hyperparameters)
	for _, q := range s.Space.Parameters {
		if value, is := fixed[q.Name]; is && err == nil {
			return shell.Usage(command, "--param %s: --hyperparameter %s=%s fixes it: remove one of the two", q.Name, q.Name, value)
		}
	}
	return err
}

// template is the training job that each trial is.
func (a app) template(ctx context.Context, c *client.Client, command *cobra.Command, t *templateFlags, dryRun bool, args []string) (cluster.Job, string, error) {
	if t.script.Given() || len(args) > 0 && t.train.File == "" {
		j, err := a.ScriptJob(ctx, c, command, &t.script, &t.train, &t.resources, dryRun, args)
		return j, ".", err
	}
	if err := t.script.Alone(command); err != nil {
		return cluster.Job{}, "", err
	}
	if t.train.File == "" && t.train.Data == "" {
		return cluster.Job{}, "", shell.Usage(command, "what is to be tried is missing: name a --script, an --image, the --data of a network, a program after --, or a file with -f")
	}
	if len(args) > 0 {
		return cluster.Job{}, "", shell.Usage(command, "%q is too much: the trials are described by %s", args[0], t.train.File)
	}
	return a.TrainingJob(ctx, c, command, &t.train, &t.resources)
}

// splitSpec takes the trial out of a sweep's spec, so that it stays as it was written.
func splitSpec(text []byte) (tuning.Spec, json.RawMessage, error) {
	var s tuning.Spec
	var whole struct {
		Trial json.RawMessage `json:"trial"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, nil, err
	}
	err := json.Unmarshal(text, &whole)
	s.Trial = nil
	return s, whole.Trial, err
}

func joinSpec(s tuning.Spec, trial json.RawMessage) ([]byte, error) {
	text, err := json.Marshal(s)
	if err != nil || trial == nil {
		return text, err
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	whole["trial"] = trial
	return json.Marshal(whole)
}

// applyJobFlags writes the flags of jobs. How long a task may run is each trial's.
func applyJobFlags(command *cobra.Command, job *submit.JobFlags, j *cluster.Job, s *tuning.Spec) error {
	whole := j.MaxRuntime
	if err := job.Apply(command, j); err != nil {
		return err
	}
	if command.Flags().Changed("max-runtime") {
		s.TrialRuntime, j.MaxRuntime = quantity.Duration(j.MaxRuntime), whole
	}
	return nil
}

// apply writes the flags that were set over a search.
func (f *tuneFlags) apply(command *cobra.Command, s *tuning.Spec) error {
	written := s.Space.Parameters // in a file: a flag stands in for one of the same name
	for _, text := range f.params {
		p, err := space.ParseShort(text)
		if err != nil {
			return fault.New(fault.Invalid, "--param %w", err)
		}
		if at := slices.IndexFunc(written, func(q tuning.Parameter) bool { return q.Name == p.Name }); at >= 0 {
			s.Space.Parameters[at].Parameter = p
			continue
		}
		s.Space.Parameters = append(s.Space.Parameters, tuning.Parameter{Parameter: p})
	}
	s.Space.Constraints = append(s.Space.Constraints, f.constraints...)
	s.WarmStart = append(s.WarmStart, f.warmStart...)
	if err := f.applyMetrics(s); err != nil {
		return err
	}
	for _, text := range f.first {
		values, err := assignments(strings.Split(text, ","))
		if err != nil {
			return fault.New(fault.Invalid, "--try: %w", err)
		}
		s.Initial = append(s.Initial, values)
	}
	return f.applyNumbers(command, s)
}

func (f *tuneFlags) applyMetrics(s *tuning.Spec) error {
	var objectives []tuner.Objective
	for _, text := range f.objectives {
		word, name, found := strings.Cut(text, ":")
		direction, known := map[string]tuner.Direction{"min": tuner.Minimize, "max": tuner.Maximize}[word]
		if !found || !known || name == "" {
			return fault.New(fault.Invalid, "--objective: %q is not min:METRIC or max:METRIC, like min:val_loss", text)
		}
		objectives = append(objectives, tuner.Objective{Name: name, Direction: direction})
	}
	if objectives != nil {
		s.Objectives = objectives
	}
	for _, text := range f.limits {
		match := regexp.MustCompile(`^(.+?)\s*(<=|>=)\s*(\S+)$`).FindStringSubmatch(text)
		if match == nil {
			return fault.New(fault.Invalid, "--limit: %q is not METRIC<=NUMBER or METRIC>=NUMBER, like memory<=800", text)
		}
		bound, err := strconv.ParseFloat(match[3], 64)
		if err != nil || !isFinite(bound) {
			return fault.New(fault.Invalid, "--limit: %q: %q is no number", text, match[3])
		}
		at := slices.IndexFunc(s.Limits, func(l tuner.Limit) bool { return l.Name == match[1] })
		if at < 0 {
			at, s.Limits = len(s.Limits), append(s.Limits, tuner.Limit{Name: match[1]})
		}
		if match[2] == "<=" {
			s.Limits[at].Max = &bound
		} else {
			s.Limits[at].Min = &bound
		}
	}
	return nil
}

func (f *tuneFlags) applyNumbers(command *cobra.Command, s *tuning.Spec) error {
	for flag, write := range map[string]func(){
		"sampler":    func() { s.Sampler = f.sampler },
		"trials":     func() { s.Budget.Trials = f.trials },
		"parallel":   func() { s.Parallel = f.parallel },
		"max-cost":   func() { s.Budget.Cost = f.maxCost },
		"core-price": func() { s.Prices.CoreHour = f.corePrice },
		"gpu-price":  func() { s.Prices.GPUHour = f.gpuPrice },
		"target":     func() { s.Target = &f.target },
		"patience":   func() { s.Patience = f.patience },
		"max-failed": func() { s.MaxFailed = f.maxFailed },
		"noiseless":  func() { s.Noiseless = f.noiseless },
	} {
		if command.Flags().Changed(flag) {
			write()
		}
	}
	for flag, v := range map[string]float64{"--max-cost": f.maxCost, "--core-price": f.corePrice, "--gpu-price": f.gpuPrice, "--target": f.target} {
		if !isFinite(v) {
			return fault.New(fault.Invalid, "%s: %v: give a finite number", flag, v)
		}
	}
	if f.stopper != "" {
		var err error
		if s.Stopper, err = parseStopper(f.stopper); err != nil {
			return err
		}
	}
	if f.maxTime != "" {
		d, err := quantity.ParseDuration(f.maxTime)
		if err != nil {
			return fault.New(fault.Invalid, "--max-time: %w", err)
		}
		s.Budget.Time = d
	}
	if f.fidelity != "" {
		name, most, named := strings.Cut(f.fidelity, ":")
		if !named {
			name, most = "", f.fidelity
		}
		v, err := strconv.ParseFloat(most, 64)
		if err != nil || !isFinite(v) {
			return fault.New(fault.Invalid, "--fidelity: %q is not MAX or NAME:MAX, like 20 or step:1000", f.fidelity)
		}
		s.Fidelity = tuner.Fidelity{Name: name, Max: v}
	}
	return nil
}

// parseStopper reads a stopper's name, and options as NAME=VALUE after commas.
func parseStopper(text string) (tuning.Stopper, error) {
	var stopper tuning.Stopper
	name, options, more := strings.Cut(text, ",")
	fields := map[string]any{}
	if more {
		values, err := assignments(strings.Split(options, ","))
		if err != nil {
			return stopper, fault.New(fault.Invalid, "--stopper: %w", err)
		}
		fields = plainValues(values)
	}
	fields["name"] = name
	written, err := json.Marshal(fields)
	if err != nil {
		return stopper, err
	}
	if err := stopper.UnmarshalJSON(written); err != nil {
		return stopper, fault.New(fault.Invalid, "--stopper %s: %w", text, err)
	}
	return stopper, nil
}

// assignments read NAME=VALUE texts.
func assignments(texts []string) (map[string]expr.Value, error) {
	values := map[string]expr.Value{}
	for _, text := range texts {
		p, err := space.ParseShort(text)
		if err == nil && (p.Type != space.Constant || p.When != nil || !p.Default.IsZero()) {
			err = fault.New(fault.Invalid, "%q is not NAME=VALUE", text)
		}
		if err != nil {
			return nil, err
		}
		if _, twice := values[p.Name]; twice {
			return nil, fault.New(fault.Invalid, "%s is there twice", p.Name)
		}
		values[p.Name] = p.Value
	}
	return values, nil
}

var inBrackets = regexp.MustCompile(`^(space\.parameters|space\.constraints|objectives|limits|initial|warm_start|trial\.metrics)\[(\d+)\]`)

// flagsOf says which flag writes a field of a sweep's spec.
var flagsOf = map[string]string{
	"space.parameters": "--param", "objectives": "--objective", "sampler": "--sampler", "stopper.name": "--stopper", "stopper.max": "--stopper: max", "stopper": "--stopper",
	"patience":     "--patience",
	"fidelity.max": "--fidelity", "budget.trials": "--trials", "budget.time": "--max-time", "budget.cost": "--max-cost",
	"prices.core_hour": "--core-price", "prices.gpu_hour": "--gpu-price", "parallel": "--parallel", "target": "--target",
	"max_failed": "--max-failed", "trial_runtime": "--max-runtime",
}

// inFlags names the flags that mistakes were made in, in place of fields that nobody wrote.
func inFlags(problems cluster.Problems, s tuning.Spec) cluster.Problems {
	names := map[string]func(int) string{
		"space.parameters":  func(i int) string { return "--param " + s.Space.Parameters[i].Name },
		"space.constraints": func(i int) string { return fmt.Sprintf("--constraint %q", s.Space.Constraints[i]) },
		"objectives":        func(i int) string { return "--objective " + s.Objectives[i].Name },
		"limits":            func(i int) string { return "--limit " + s.Limits[i].Name },
		"initial":           func(i int) string { return fmt.Sprintf("--try %d", i+1) },
		"warm_start":        func(i int) string { return "--warm-start " + s.WarmStart[i] },
		"trial.metrics":     func(i int) string { return fmt.Sprintf("--metric %d", i+1) },
	}
	out := slices.Clone(problems)
	for i := range out {
		field := out[i].Field
		if flag, known := flagsOf[field]; known {
			out[i].Field = flag
			continue
		}
		if match := inBrackets.FindStringSubmatch(field); match != nil {
			index, _ := strconv.Atoi(match[2])
			rest := strings.TrimPrefix(field[len(match[0]):], ".")
			out[i].Field = strings.TrimSuffix(names[match[1]](index)+": "+rest, ": ")
		}
	}
	return out
}

// parameterNames are a sweep's parameters in the order in which they were written.
func parameterNames(s tuning.Spec) []string {
	names := make([]string, len(s.Space.Parameters))
	for i, p := range s.Space.Parameters {
		names[i] = p.Name
	}
	return names
}

// plainValues are values as JSON has them.
func plainValues(values map[string]expr.Value) map[string]any {
	out := map[string]any{}
	for name, value := range values {
		switch value.Type() {
		case expr.Number:
			out[name] = value.Number()
		case expr.Truth:
			out[name] = value.Truth()
		default:
			out[name] = value.String()
		}
	}
	return out
}

// parameterCells are a trial's parameters as cells of a table.
func parameterCells(names []string, values map[string]any) []string {
	cells := make([]string, len(names))
	for i, name := range names {
		if value, active := values[name]; active {
			cells[i] = shell.Cut(valueText(value), 24)
		}
	}
	return cells
}

// valueText is a parameter's value in at most five digits.
func valueText(value any) string {
	if number, is := value.(float64); is {
		return digits5(number)
	}
	return fmt.Sprint(value)
}

// digits5 writes a number in five digits, whole ones as they are.
func digits5(v float64) string {
	if v == float64(int64(v)) && v < 1e15 && v > -1e15 {
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'g', 5, 64)
}
