package endpoints

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
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
	"github.com/clary-ml/clary/serving/autoscale"
	"github.com/clary-ml/clary/workload/endpoint"
)

// deployFlags are those of a new endpoint.
type deployFlags struct {
	server   submit.ServerFlags
	wait     waitFlags
	file     string
	name     string
	queue    string
	priority int32
	labels   []string
	variants []string
	replicas int32
	least    int
	most     int
	target   float64
	models   string
	capture  string
	share    float64
	public   bool
	dryRun   bool
}

func (f *deployFlags) register(a app, command *cobra.Command) {
	f.server.Register(command, submit.PortHelp+"for containers, each of which has an address of its own")
	f.wait.register(command)
	flags := command.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "a YAML or JSON file with all of it, see clary schema endpoint; - is standard input")
	flags.StringVar(&f.name, "name", "", "name of the endpoint (default: the model's, with "+endpointEnding+" where another job has it)")
	flags.StringVar(&f.queue, "queue", "", "queue to wait in (default \"default\")")
	flags.Int32Var(&f.priority, "priority", 0, "higher goes first within the queue, from -1000 to 1000")
	flags.StringSliceVar(&f.labels, "label", nil, "your own words for finding it again, as key=value")
	flags.StringArrayVar(&f.variants, "variant", nil, "a variant as NAME=MODEL or NAME=MODEL:WEIGHT, once for each, in place of MODEL")
	flags.Int32Var(&f.replicas, "replicas", 1, "servers of each variant, spread over the nodes")
	flags.IntVar(&f.least, "min", 1, "the fewest replicas of each variant, with --max: 0 lets it have none while nobody asks")
	flags.IntVar(&f.most, "max", 0, "the most replicas of each variant: their number follows the load")
	flags.Float64Var(&f.target, "target-concurrency", 0, "requests at a time that each replica should have, with --max (default 1)")
	flags.StringVar(&f.models, "models", "", "s3:// prefix of many models behind the endpoint, in place of MODEL: each is loaded when a request names it")
	flags.StringVar(&f.capture, "capture", "", "s3:// prefix where requests and answers are kept as JSON lines")
	flags.Float64Var(&f.share, "capture-share", 1, "part of the requests that --capture keeps, from 0 to 1")
	flags.BoolVar(&f.public, "public", false, "let anyone ask, without a token")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be placed where, and deploy nothing")
	_ = command.MarkFlagFilename("file", "yaml", "yml", "json")
}

func (a app) deployCommand() *cobra.Command {
	var f deployFlags
	command := &cobra.Command{
		Use:   "deploy [MODEL] [flags] [-- COMMAND...]",
		Short: "Make an endpoint of a model: a name that answers requests, and stays up",
		Long: "Make an endpoint of a model, and wait until its replicas answer. MODEL is NAME@VERSION or NAME:ALIAS of the registry, the\n" +
			"name of a job that made one, an s3:// address, or a file or folder here. The server is Clary's own, or an image, a\n" +
			"script or a command that speaks SageMaker's contract: GET /ping and POST /invocations at the port that\n" +
			"SAGEMAKER_BIND_TO_PORT says; it finds the model in /opt/ml/model, or in model/ below SAGEMAKER_BASE_DIR.\n\n" +
			"Replicas that end are started again. Of one that fails the reason and the end of its log are shown. Ctrl-C ends the\n" +
			"waiting and not the endpoint. clary endpoint changes it: update, weights, scale, rollback, delete.",
		Example: `  clary deploy churn:champion --replicas 2
  clary deploy --name churn --variant blue=model://churn@3:90 --variant green=model://churn@4:10
  clary deploy digits --cores 0.5 --memory 256MiB --capture s3://logs/digits/ --capture-share 0.1
  clary deploy digits:champion --name live --min 0 --max 8 --target-concurrency 4
  clary deploy s3://models/forest.tar.gz --name forest --script inference.py --requirements requirements.txt
  clary deploy --name llm --image team/llm:3 --gpus 1 --startup-timeout 10m
  clary deploy -f endpoint.yaml`,
		ValidArgsFunction: a.CompleteModels(),
	}
	f.register(a, command)
	command.Args = func(command *cobra.Command, args []string) error {
		if at := command.ArgsLenAtDash(); at >= 0 {
			args = args[:at]
		}
		return shell.Takes("[MODEL]")(command, args)
	}
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		var program []string
		if at := command.ArgsLenAtDash(); at >= 0 {
			args, program = args[:at], args[at:]
		}
		job, err := a.endpointJob(ctx, c, command, &f, args, program)
		if err != nil {
			return err
		}
		if f.dryRun {
			return a.DryRun(ctx, c, job, ".")
		}
		return a.deploy(ctx, c, job, f.wait)
	})
	return command
}

// deploy submits an endpoint, and waits until it answers.
func (a app) deploy(ctx context.Context, c *client.Client, job cluster.Job, wait waitFlags) error {
	submitted, err := c.Submit(ctx, job)
	if fault.Is(err, fault.Conflict) {
		return taken(ctx, c, job.Name, err)
	}
	if err != nil {
		return err
	}
	name := submitted.Job.Name
	if wait.detach {
		return a.Print(shell.JobToJSON(client.JobView{Job: submitted.Job}), func(out io.Writer) error {
			_, err := fmt.Fprintf(out, "%s is deployed; follow it with clary endpoint status %s --watch\n", name, name)
			return err
		})
	}
	view, err := a.settle(ctx, c, name, 0, wait.timeout)
	if err != nil {
		return err
	}
	return a.Print(endpointToJSON(view), func(out io.Writer) error { return a.showHow(out, view) })
}

// taken says what to do about a name that is.
func taken(ctx context.Context, c *client.Client, name string, conflict error) error {
	there, err := c.Job(ctx, name)
	switch {
	case err != nil:
		return conflict
	case there.Job.Kind != cluster.KindEndpoint:
		return fault.New(fault.Conflict, "name: %q is a job of kind %s, and endpoints are jobs too: give the endpoint another with --name", name, there.Job.Kind)
	case there.Job.State.Ended():
		return fault.New(fault.Conflict, "name: endpoint %q has %s: forget it with clary delete %s, or give this one another with --name", name, there.Job.State, name)
	}
	return fault.New(fault.Conflict, "name: endpoint %q exists already: replace what it runs with clary endpoint update %s --model MODEL, or end it with clary endpoint delete %s", name, name, name)
}

// showHow tells where an endpoint answers, and how to ask.
func (a app) showHow(out io.Writer, view client.EndpointView) error {
	name := view.Job.Name
	if len(view.Routers) == 0 {
		a.Note("no router is there: start coordinators with --serve-listen, or an agent with --ingress-listen")
		return nil
	}
	url := endpointURL(view.Routers[0].URL, name)
	fmt.Fprintf(out, "%s answers at %s\n\n  clary invoke %s rows.csv\n", name, url, name)
	settings, err := a.curlSettings()
	if err != nil {
		a.Note("for curl the CA cannot be written down: %s", shell.OneLine(err.Error()))
		return nil
	}
	fmt.Fprintf(out, "  curl -K %s -H 'Content-Type: text/csv' --data-binary @rows.csv %s\n", settings, url)
	return nil
}

// endpointJob is the job that the flags or a file describe.
func (a app) endpointJob(ctx context.Context, c *client.Client, command *cobra.Command, f *deployFlags, args, program []string) (cluster.Job, error) {
	job := cluster.Job{Kind: cluster.KindEndpoint, Queue: f.queue, Priority: f.priority}
	var err error
	if f.file != "" {
		if job, err = a.endpointFile(ctx, c, command, f, args, program); err != nil {
			return job, err
		}
	} else {
		spec, err := a.endpointSpec(ctx, c, command, f, args, program)
		if err != nil {
			return job, err
		}
		if job.Spec, err = json.Marshal(spec); err != nil {
			return job, err
		}
		if job.Name = f.name; job.Name == "" {
			if job.Name, err = a.freeName(ctx, c, nameOfModel(args)); err != nil {
				return job, err
			}
			if job.Name == "" {
				return job, shell.Usage(command, "--name is missing: say what the endpoint is to be called")
			}
		}
	}
	if command.Flags().Changed("name") {
		job.Name = f.name
	}
	labels, err := shell.Pairs("--label", f.labels)
	if labels != nil {
		job.Labels = labels
	}
	return job, err
}

// endpointEnding is added to a model's name that a job has already: that which made the model, say.
const endpointEnding = "-endpoint"

// freeName is the name for an endpoint of a model: the model's own, unless a job that is no endpoint has it.
func (a app) freeName(ctx context.Context, c *client.Client, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	there, err := c.Job(ctx, name)
	switch {
	case fault.Is(err, fault.NotFound):
		return name, nil
	case err != nil:
		return "", err
	case there.Job.Kind == cluster.KindEndpoint:
		return name, nil // which is told when it is submitted
	}
	a.Note("the endpoint is called %s%s, since %s is a job of kind %s", name, endpointEnding, name, there.Job.Kind)
	return name + endpointEnding, nil
}

// besideFile are the flags that go with a file.
var besideFile = map[string]bool{"file": true, "name": true, "label": true, "dry-run": true, "detach": true, "timeout": true, "output": true, "context": true, "queue": true, "priority": true}

// endpointFile is the job of a file; models that lie here are uploaded.
func (a app) endpointFile(ctx context.Context, c *client.Client, command *cobra.Command, f *deployFlags, args, program []string) (cluster.Job, error) {
	var other string
	command.Flags().Visit(func(flag *pflag.Flag) {
		if !besideFile[flag.Name] {
			other = "--" + flag.Name
		}
	})
	if len(args)+len(program) > 0 {
		other = append(args, program...)[0]
	}
	if other != "" {
		return cluster.Job{}, shell.Usage(command, "%s goes without -f: %s says all", other, f.file)
	}
	job, err := a.ReadJobFile(f.file)
	if err != nil {
		return job, err
	}
	if job.Kind != cluster.KindEndpoint {
		return job, fault.New(fault.Invalid, "%s is a job of kind %s: submit it with clary submit -f", f.file, job.Kind)
	}
	if job.Name == "" && f.name == "" {
		return job, shell.Usage(command, "the endpoint has no name: give it one with --name, or as name: in %s", f.file)
	}
	if command.Flags().Changed("queue") {
		job.Queue = f.queue
	}
	if command.Flags().Changed("priority") {
		job.Priority = f.priority
	}
	job.Spec, err = submit.MapModels(job.Spec, func(model string) (string, error) {
		return a.DeployedModel(ctx, c, model, submit.FolderOf(f.file), f.dryRun)
	})
	return job, err
}

// endpointSpec is the spec that the flags describe.
func (a app) endpointSpec(ctx context.Context, c *client.Client, command *cobra.Command, f *deployFlags, args, program []string) (endpoint.Spec, error) {
	spec := endpoint.Spec{Public: f.public, Models: f.models}
	switch {
	case len(args) > 0 && len(f.variants) > 0:
		return spec, shell.Usage(command, "%q and --variant are both a model: leave one of them out", args[0])
	case f.models != "" && len(args)+len(f.variants) > 0:
		return spec, shell.Usage(command, "--models is in place of a model: leave one of them out")
	case f.capture == "" && command.Flags().Changed("capture-share"):
		return spec, shell.Usage(command, "--capture-share is for --capture: say where to")
	}
	if f.capture != "" {
		spec.Capture = &endpoint.Capture{Share: quantity.Share(f.share), To: f.capture}
	}
	scaling, err := f.scaling(command)
	if err != nil {
		return spec, err
	}
	missing := ""
	if len(args)+len(f.variants) == 0 && f.models == "" {
		missing = "MODEL"
	}
	server, err := a.Server(ctx, c, command, &f.server, missing, f.dryRun, program)
	if err != nil {
		return spec, err
	}
	models := f.variants
	if len(models) == 0 {
		models = args
	}
	if len(models) == 0 {
		models = []string{""} // the server needs none
	}
	for _, text := range models {
		variant, err := variantOf(text, len(f.variants) > 0)
		if err != nil {
			return spec, err
		}
		model := variant.Model
		variant.Server = server
		if variant.Model, err = a.DeployedModel(ctx, c, model, ".", f.dryRun); err != nil {
			return spec, err
		}
		if command.Flags().Changed("replicas") {
			variant.Replicas = &f.replicas
		}
		variant.Scaling = scaling
		spec.Variants = append(spec.Variants, variant)
	}
	return spec, nil
}

// scaling is how the number of replicas follows the load, nil if it does not.
func (f *deployFlags) scaling(command *cobra.Command) (*autoscale.Spec, error) {
	changed := command.Flags().Changed
	switch {
	case !changed("max") && (changed("min") || changed("target-concurrency")):
		return nil, shell.Usage(command, "--min and --target-concurrency go with --max: say how many replicas there may be")
	case !changed("max"):
		return nil, nil
	case changed("replicas"):
		return nil, shell.Usage(command, "--replicas and --max both say how many: leave one of them out")
	}
	target := f.target
	if !changed("target-concurrency") {
		target = 1
	}
	return &autoscale.Spec{Min: f.least, Max: f.most, Policies: []autoscale.Policy{{Metric: autoscale.Concurrency, Target: target}}}, nil
}

// variantOf reads MODEL, or NAME=MODEL with a weight after a last colon.
func variantOf(text string, named bool) (endpoint.Variant, error) {
	var v endpoint.Variant
	if v.Model = text; !named {
		return v, nil
	}
	name, model, found := strings.Cut(text, "=")
	if !found || name == "" || model == "" {
		return v, fault.New(fault.Invalid, "--variant: %q is not NAME=MODEL or NAME=MODEL:WEIGHT", cluster.Clip(text))
	}
	v.Name, v.Model = name, model
	at := strings.LastIndexByte(model, ':')
	if at < 0 {
		return v, nil
	}
	weight, err := strconv.ParseFloat(model[at+1:], 64)
	ref, noRef := cluster.ParseModelRef(model[:at])
	if alias := noRef == nil && ref.Whole() && cluster.IsModelRef(model); err != nil || alias {
		return v, nil
	}
	v.Model, v.Weight = model[:at], &weight
	return v, nil
}

// nameOfModel is what an endpoint is called if nobody says: as its model.
func nameOfModel(args []string) string {
	if len(args) == 0 {
		return ""
	}
	name := strings.TrimPrefix(args[0], cluster.ModelScheme)
	if ref, err := cluster.ParseModelRef(name); err == nil {
		return ref.Model
	}
	name = filepath.Base(strings.TrimRight(name, "/"))
	for _, ending := range []string{".gz", ".tar", ".onnx", ".json"} {
		name = strings.TrimSuffix(name, ending)
	}
	name = strings.Trim(strings.ToLower(submit.NotInNames.ReplaceAllString(name, "-")), "-._")
	var problems cluster.Problems
	if cluster.CheckName(&problems, "name", name); problems != nil {
		return ""
	}
	return name
}
