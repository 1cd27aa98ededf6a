package models

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/batch"
	"github.com/clary-ml/clary/serving/batch/record"
	"github.com/clary-ml/clary/workload/transform"
)

// transformFlags are those of a batch transform.
type transformFlags struct {
	job    submit.JobFlags
	server submit.ServerFlags

	model, input, output      string
	fastFile, manifest, gzip  bool
	split, assemble           string
	contentType, accept       string
	join                      string
	inputFilter, outputFilter string
	strategy, maxPayload      string
	maxConcurrent             int
	timeout                   string
	tries                     int
	instances                 int32
}

func (f *transformFlags) register(a app, command *cobra.Command) {
	f.job.Register(command)
	f.server.Register(command, submit.PortHelp+"for one instance, which waits while another job on its node has the port")
	flags := command.Flags()
	flags.SetInterspersed(false)
	// --output is what every other command calls its format.
	flags.StringVarP(&a.Format, "format", "o", "table", "table, json or yaml")
	flags.StringVar(&f.model, "model", "", "what the server finds in /opt/ml/model: the name of a job that made one, model://NAME@VERSION, s3://..., or a file or folder here")
	flags.StringVar(&f.input, "input", "", "what to transform: s3://bucket/key, all below s3://bucket/prefix/, or a file or folder here, which is uploaded")
	flags.BoolVar(&f.fastFile, "fast-file", false, "fetch objects as they are read, not before")
	flags.BoolVar(&f.manifest, "manifest", false, "the input is a manifest: a JSON list of objects")
	flags.BoolVar(&f.gzip, "gzip", false, "decompress the objects on the way")
	flags.StringVar(&f.output, "output", "", "where KEY.out of each object KEY goes: s3://bucket/prefix/")
	flags.StringVar(&f.split, "split", "none", "what a record is: none for the object, line, record_io or tf_record")
	flags.StringVar(&f.assemble, "assemble", "", "what stands between answers: line or none (default line for --split line, else none)")
	flags.StringVar(&f.contentType, "content-type", "", "of the input, e.g. text/csv, application/jsonlines")
	flags.StringVar(&f.accept, "accept", "", "content type of the answers (default: the input's)")
	flags.StringVar(&f.join, "join", "", "input for outputs that have each record before its prediction")
	flags.StringVar(&f.inputFilter, "input-filter", "", "JSONPath of what is sent of a record, e.g. $[1:], $.features")
	flags.StringVar(&f.outputFilter, "output-filter", "", "JSONPath of what is kept of a (joined) answer, e.g. $[0,-1], $['id','SageMakerOutput']")
	flags.StringVar(&f.strategy, "strategy", "", "single record a request, or multi (default: the server's /execution-parameters, else multi)")
	flags.StringVar(&f.maxPayload, "max-payload", "", "most of a request, e.g. 6MiB (default: the server's, else 6MiB)")
	flags.IntVar(&f.maxConcurrent, "max-concurrent", 0, "requests that an instance gets at a time (default: the server's, else 1)")
	flags.StringVar(&f.timeout, "invocation-timeout", "", "how long an answer may take (default 1m)")
	flags.IntVar(&f.tries, "invocation-retries", 3, "how often a request is sent again that has no good answer")
	flags.Int32VarP(&f.instances, "instances", "n", 1, "servers that share the objects")
	_ = command.RegisterFlagCompletionFunc("model", a.CompleteModels())
	for flag, values := range map[string][]string{
		"format": {"table", "json", "yaml"}, "split": {"none", "line", "record_io", "tf_record"}, "assemble": {"none", "line"}, "join": {"input"}, "strategy": {"single", "multi"},
	} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

func (a app) transformCommand() *cobra.Command {
	var f transformFlags
	command := &cobra.Command{
		Use:   "transform [flags] [-- COMMAND...]",
		Short: "Score objects in bulk through a model's server, and wait for it",
		Long: "Send objects of the store through a model's server, record by record, and leave KEY.out for each object KEY.\n" +
			"The server is Clary's own, for models that it trains, or an image, a script or a command that speaks SageMaker's contract: GET /ping and POST /invocations at\n" +
			"the port that SAGEMAKER_BIND_TO_PORT says; it finds the model in /opt/ml/model, or in model/ below SAGEMAKER_BASE_DIR.\n\n" +
			"The order of records is kept. An object with a record that the server refuses has no output; all others have, and the\n" +
			"job has failed and names it. Whatever is killed, no record is lost or doubled: work goes on where it stood. Unless\n" +
			"--retries says otherwise that is tried three times; what would end the same again is not.\n" +
			"Ctrl-C ends the waiting and not the job. -o, --format says how the ended job is shown: table, json or yaml.",
		Example: `  clary transform --model digits --input rows.csv --output s3://data/scored/ --split line --content-type text/csv --join input
  clary transform --model churn --input s3://data/rows/ --output s3://data/scored/ --split line --content-type text/csv -- python3 serve.py
  clary transform --model s3://models/m.tar.gz --image team/scorer:2 --input s3://data/rows/ --output s3://data/scored/ --instances 4
  clary transform --script serve.py --input rows.csv --output s3://data/scored/ --split line --content-type text/csv \
      --join input --input-filter '$[1:]' --output-filter '$[0,-1]' --max-payload 1MiB --max-concurrent 4`,
	}
	f.register(a, command)
	command.RunE = func(command *cobra.Command, args []string) error {
		return a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			j, err := a.transformJob(ctx, c, command, &f, args)
			if err != nil {
				return err
			}
			if f.job.DryRun {
				return a.DryRun(ctx, c, j, ".")
			}
			return a.SubmitAndWait(ctx, c, j, f.job.Detach || j.Held)
		})(command, args)
	}
	return command
}

// transformJob is the job that the flags describe. What lies here is uploaded, unless it is a dry run.
func (a app) transformJob(ctx context.Context, c *client.Client, command *cobra.Command, f *transformFlags, args []string) (cluster.Job, error) {
	j := cluster.Job{Kind: cluster.KindTransform}
	s, err := a.transformSpec(ctx, c, command, f, args)
	if err != nil {
		return j, err
	}
	if j.Spec, err = json.Marshal(s); err != nil {
		return j, err
	}
	if err := f.job.Apply(command, &j); err != nil {
		return j, err
	}
	changed := command.Flags().Changed
	if !changed("retries") {
		j.Retry.Limit = defaultTransformRetries
	}
	if !changed("retry-only") && !changed("retry-never") {
		j.Retry.Only = transform.RetryCodes()
	}
	if j.Name == "" {
		j.Name = submit.FreshName("transform")
	}
	return j, nil
}

const defaultTransformRetries = 3

func (a app) transformSpec(ctx context.Context, c *client.Client, command *cobra.Command, f *transformFlags, args []string) (transform.Spec, error) {
	switch {
	case f.input == "":
		return transform.Spec{}, shell.Usage(command, "--input is missing: name what to transform")
	case f.output == "":
		return transform.Spec{}, shell.Usage(command, "--output is missing: name an s3:// prefix for the answers")
	case !strings.HasPrefix(f.output, "s3://"):
		return transform.Spec{}, fault.New(fault.Invalid, "--output: %q is not s3://bucket/prefix/ (the format of what clary prints is -o or --format)", cluster.Clip(f.output))
	}
	s := transform.Spec{
		Output: f.output, Split: record.Split(f.split), Assemble: batch.Assembly(f.assemble), ContentType: f.contentType, Accept: f.accept, Join: f.join,
		InputFilter: f.inputFilter, OutputFilter: f.outputFilter, Strategy: batch.Strategy(f.strategy), MaxConcurrent: f.maxConcurrent,
		Instances: f.instances,
	}
	if err := f.bounds(command, &s); err != nil {
		return s, err
	}
	missing := ""
	if f.model == "" {
		missing = "--model"
	}
	var err error
	if s.Server, err = a.Server(ctx, c, command, &f.server, missing, f.job.DryRun, args); err != nil {
		return s, err
	}
	if s.Model, err = a.ModelAddress(ctx, c, f.model, f.job.DryRun); err != nil {
		return s, fault.New(fault.KindOf(err), "--model: %w", err)
	}
	s.Input = transform.Input{Gzip: f.gzip}
	if f.fastFile {
		s.Input.Mode = cluster.InputFastFile
	}
	if f.manifest {
		s.Input.Type = cluster.InputManifest
	}
	if s.Input.URI, err = a.Address(ctx, c, f.input, f.job.DryRun); err != nil {
		return s, fault.New(fault.KindOf(err), "--input: %w", err)
	}
	return s, nil
}

// bounds are the flags that are amounts.
func (f *transformFlags) bounds(command *cobra.Command, s *transform.Spec) error {
	if command.Flags().Changed("invocation-retries") {
		s.InvocationRetries = &f.tries
	}
	var err error
	if f.maxPayload != "" {
		if s.MaxPayload, err = quantity.ParseBytes(f.maxPayload); err != nil {
			return fault.New(fault.Invalid, "--max-payload: %w", err)
		}
	}
	if f.timeout != "" {
		if s.InvocationTimeout, err = quantity.ParseDuration(f.timeout); err != nil {
			return fault.New(fault.Invalid, "--invocation-timeout: %w", err)
		}
	}
	return nil
}
