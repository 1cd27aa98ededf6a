package endpoints

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload/endpoint"
)

// updateFlags are those of an endpoint's update.
type updateFlags struct {
	wait    waitFlags
	file    string
	models  []string
	images  []string
	added   []string
	removed []string
	dryRun  bool
	replace bool
	anew    bool

	strategy, step, bake, keep string
	errorRate, p99             string
}

func (f *updateFlags) register(command *cobra.Command) {
	f.wait.register(command)
	flags := command.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "a YAML or JSON file with all of the new version; - is standard input")
	flags.StringArrayVar(&f.models, "model", nil, "another model: MODEL where there is one variant, else VARIANT=MODEL")
	flags.StringArrayVar(&f.images, "image", nil, "another container image: IMAGE where there is one variant, else VARIANT=IMAGE")
	flags.StringArrayVar(&f.added, "add", nil, "another variant, as NAME=MODEL or NAME=MODEL:WEIGHT; its server is as the first variant's")
	flags.StringArrayVar(&f.removed, "remove", nil, "a variant that is to go")
	flags.StringVar(&f.strategy, "strategy", "", "how the new version takes over: all_at_once, canary or linear")
	flags.StringVar(&f.step, "step", "", "of a canary or linear update, the share of the requests that goes over in a step, e.g. 10%")
	flags.StringVar(&f.bake, "bake", "", "how long a step lasts, e.g. 5m")
	flags.StringVar(&f.keep, "keep-old", "", "how long the old replicas stay after the last step (default 1m)")
	flags.StringVar(&f.errorRate, "max-error-rate", "", "roll back when more of the new version's answers are errors, e.g. 2%")
	flags.StringVar(&f.p99, "max-latency-p99", "", "roll back when a hundredth of the new version's answers take longer, e.g. 200ms")
	flags.BoolVar(&f.replace, "replace", false, "give up an update that is in progress")
	flags.BoolVar(&f.anew, "anew", false, "start new replicas though nothing of them is different, as for a secret that has changed")
	flags.BoolVar(&f.dryRun, "dry-run", false, "check all, and change nothing")
	_ = command.MarkFlagFilename("file", "yaml", "yml", "json")
	_ = command.RegisterFlagCompletionFunc("strategy", cobra.FixedCompletions([]string{string(endpoint.AllAtOnce), string(endpoint.Canary), string(endpoint.Linear)}, cobra.ShellCompDirectiveNoFileComp))
}

func (a app) endpointUpdateCommand() *cobra.Command {
	var f updateFlags
	command := &cobra.Command{
		Use: "update NAME", Short: "Replace what an endpoint runs, step by step, and go back by itself if it does badly",
		Long: "Replace what an endpoint runs, and wait until that is done. The new version's replicas start beside the old ones; when\n" +
			"all answer they get the requests, at once or step by step; then the old ones go. Replicas that do not start, or an\n" +
			"alarm, roll it back: exit code 1. How an update goes is kept for the next one.",
		Example: `  clary endpoint update churn --model model://churn@4
  clary endpoint update churn --model green=churn:challenger --strategy canary --step 10% --bake 5m --max-error-rate 2%
  clary endpoint update churn --add green=model://churn@4:10
  clary endpoint update churn -f endpoint.yaml --detach`,
		Args: shell.Takes("NAME"), ValidArgsFunction: a.completeEndpoints(),
	}
	f.register(command)
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		return a.updateEndpoint(ctx, c, command, &f, args[0])
	})
	return command
}

func (a app) updateEndpoint(ctx context.Context, c *client.Client, command *cobra.Command, f *updateFlags, name string) error {
	now, err := c.Endpoint(ctx, name)
	if err != nil {
		return err
	}
	spec, err := a.updatedSpec(ctx, c, command, f, now.Endpoint)
	if err != nil {
		return err
	}
	view, err := c.UpdateEndpoint(ctx, name, client.EndpointUpdate{Spec: spec, Expect: now.Endpoint.Last, Replace: f.replace, Anew: f.anew, DryRun: f.dryRun})
	if err != nil {
		return err
	}
	if f.dryRun {
		return a.Print(endpointToJSON(view), func(io.Writer) error {
			a.Note("%s would be updated; nothing was changed: this was a dry run", name)
			return nil
		})
	}
	if view.Endpoint.Last == now.Endpoint.Last && view.Endpoint.Rollout == nil {
		return a.Print(endpointToJSON(view), func(out io.Writer) error {
			said := "is as it was"
			if !bytes.Equal(view.Endpoint.Spec, now.Endpoint.Spec) {
				said = "is changed, without new replicas"
			}
			_, err := fmt.Fprintf(out, "%s %s: generation %d has it\n", name, said, view.Endpoint.Generation)
			return err
		})
	}
	said := fmt.Sprintf("is at generation %d", view.Endpoint.Last)
	if f.wait.detach {
		said = fmt.Sprintf("goes to generation %d", view.Endpoint.Last)
	}
	return a.changed(ctx, c, view, f.wait, view.Endpoint.Last, said)
}

// updatedSpec is the file's spec, or the one in force with what flags change.
func (a app) updatedSpec(ctx context.Context, c *client.Client, command *cobra.Command, f *updateFlags, now cluster.Endpoint) ([]byte, error) {
	changes := append(slices.Concat(f.models, f.images, f.added, f.removed), f.strategy, f.step, f.bake, f.keep, f.errorRate, f.p99)
	changes = slices.DeleteFunc(changes, func(text string) bool { return text == "" })
	switch {
	case f.file != "" && len(changes) > 0:
		return nil, shell.Usage(command, "-f goes without %q: change that in %s", changes[0], f.file)
	case f.file == "" && len(changes) == 0 && !f.anew:
		return nil, shell.Usage(command, "say what to change: --model, --image, --add, --remove, --anew, how it takes over, or -f with all of it")
	case f.file != "":
		job, err := a.ReadJobFile(f.file)
		if err != nil {
			return nil, err
		}
		if job.Kind != cluster.KindEndpoint {
			return nil, fault.New(fault.Invalid, "%s is a job of kind %s: an endpoint is needed", f.file, job.Kind)
		}
		return submit.MapModels(job.Spec, func(model string) (string, error) {
			return a.DeployedModel(ctx, c, model, submit.FolderOf(f.file), f.dryRun)
		})
	}
	var spec endpoint.Spec
	if err := json.Unmarshal(now.Spec, &spec); err != nil {
		return nil, fault.New(fault.Internal, "the spec of %s cannot be read by this clary: %w", now.Job, err)
	}
	if err := a.changeVariants(ctx, c, f, &spec); err != nil {
		return nil, err
	}
	if err := f.changeStrategy(&spec.Update); err != nil {
		return nil, err
	}
	return json.Marshal(spec)
}

// changeVariants writes the flags over the variants.
func (a app) changeVariants(ctx context.Context, c *client.Client, f *updateFlags, spec *endpoint.Spec) error {
	for _, name := range f.removed {
		at := slices.IndexFunc(spec.Variants, func(v endpoint.Variant) bool { return v.ID() == name })
		if at < 0 {
			return noVariant("--remove", name, *spec)
		}
		spec.Variants = slices.Delete(spec.Variants, at, at+1)
	}
	for _, text := range f.models {
		v, model, err := addressed("--model", text, spec)
		if err != nil {
			return err
		}
		if v.Model, err = a.DeployedModel(ctx, c, model, ".", f.dryRun); err != nil {
			return fault.New(fault.KindOf(err), "--model: %w", err)
		}
	}
	for _, text := range f.images {
		v, image, err := addressed("--image", text, spec)
		if err != nil {
			return err
		}
		if v.Image, err = a.ImageAt(ctx, c, image, f.dryRun); err != nil {
			return fault.New(fault.KindOf(err), "--image: %w", err)
		}
	}
	for _, text := range f.added {
		added, err := variantOf(text, true)
		if err != nil {
			return fault.New(fault.Invalid, "--add: %w", err)
		}
		if len(spec.Variants) > 0 {
			model := added.Model
			added.Server = spec.Variants[0].Server
			added.Model, added.Probe = model, spec.Variants[0].Probe
		}
		if added.Model, err = a.DeployedModel(ctx, c, added.Model, ".", f.dryRun); err != nil {
			return fault.New(fault.KindOf(err), "--add: %w", err)
		}
		spec.Variants = append(spec.Variants, added)
	}
	return nil
}

// addressed finds the variant of VARIANT=VALUE, or the only one.
func addressed(flag, text string, spec *endpoint.Spec) (*endpoint.Variant, string, error) {
	name, value, found := strings.Cut(text, "=")
	for i := range spec.Variants {
		if found && spec.Variants[i].ID() == name {
			return &spec.Variants[i], value, nil
		}
	}
	switch {
	case found:
		return nil, "", noVariant(flag, name, *spec)
	case len(spec.Variants) != 1:
		return nil, "", fault.New(fault.Invalid, "%s: %q is of which variant? Write VARIANT=%s: there is %s", flag, cluster.Clip(text), cluster.Clip(text), variantNames(*spec))
	}
	return &spec.Variants[0], text, nil
}

func noVariant(flag, name string, spec endpoint.Spec) error {
	return fault.New(fault.NotFound, "%s: there is no variant %q: there is %s", flag, cluster.Clip(name), variantNames(spec))
}

func variantNames(spec endpoint.Spec) string {
	var names []string
	for _, v := range spec.Variants {
		names = append(names, v.ID())
	}
	return strings.Join(names, ", ")
}

// changeStrategy writes the flags over how updates go.
func (f *updateFlags) changeStrategy(u *endpoint.Takeover) error {
	if f.strategy != "" {
		u.Strategy = endpoint.Strategy(f.strategy)
		if u.Strategy == endpoint.AllAtOnce {
			u.Step = 0
		}
	}
	if f.step != "" {
		share, err := quantity.ParseShare(f.step)
		if err != nil {
			return fault.New(fault.Invalid, "--step: %w", err)
		}
		u.Step = share
	}
	keep := quantity.Duration(0)
	for _, d := range []struct {
		flag, text string
		to         *quantity.Duration
	}{{"bake", f.bake, &u.Bake}, {"keep-old", f.keep, &keep}} {
		if d.text == "" {
			continue
		}
		value, err := quantity.ParseDuration(d.text)
		if err != nil {
			return fault.New(fault.Invalid, "--%s: %w", d.flag, err)
		}
		*d.to = value
	}
	if f.keep != "" {
		u.Wait = &keep
	}
	return f.changeAlarms(u)
}

func (f *updateFlags) changeAlarms(u *endpoint.Takeover) error {
	if f.errorRate == "" && f.p99 == "" {
		return nil
	}
	if u.Alarms == nil {
		u.Alarms = &endpoint.Alarms{}
	}
	if f.errorRate != "" {
		share, err := quantity.ParseShare(f.errorRate)
		if err != nil {
			return fault.New(fault.Invalid, "--max-error-rate: %w", err)
		}
		u.Alarms.ErrorRate = &share
	}
	if f.p99 != "" {
		d, err := quantity.ParseDuration(f.p99)
		if err != nil {
			return fault.New(fault.Invalid, "--max-latency-p99: %w", err)
		}
		u.Alarms.LatencyP99 = d
	}
	return nil
}
