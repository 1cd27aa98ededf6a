package models

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/modelserver"
)

// serveFlags are those of a model server.
type serveFlags struct {
	host, name, version string
	port, maxBatch      int
	maxRequests         int
	maxDelay            time.Duration
	maxPayload          string
	timeout, drain      time.Duration

	models         string // the folder of many
	maxModels      int
	maxModelBytes  string
	script, python string
	onnxruntime    string
	workers        int
	startWithin    time.Duration
}

func (a app) serveCommand() *cobra.Command {
	var f serveFlags
	command := &cobra.Command{
		Use:   "serve [MODEL]",
		Short: "Answer requests for a model's predictions over HTTP, on this machine",
		Long: "Answer requests for predictions, on this machine, until SIGTERM or Ctrl-C; then what goes on is finished first.\n" +
			modelHelp + "\nWithout MODEL it is the contract of a container: the model lies in /opt/ml/model, or in model/ below\n" +
			"SAGEMAKER_BASE_DIR, and all addresses listen, at port 8080 or SAGEMAKER_BIND_TO_PORT.\n\n" +
			"GET /ping says whether it is ready; POST /invocations takes rows as text/csv, application/json or\n" +
			"application/jsonlines, and answers in the same or as Accept says; GET /metrics is for Prometheus.\n" +
			"The Open Inference Protocol v2 is spoken over REST (/v2/…) and gRPC on the same port.\n" +
			"A model with a transform takes raw rows, as they were before clary prepare.\n\n" +
			"With --models it serves all models of a folder, each loaded when X-Amzn-SageMaker-Target-Model first names it\n" +
			"and unloaded when others need the room.\n\n" +
			"An ONNX model (a .onnx file, or a folder that has one) is served where onnxruntime's shared library is present.\n" +
			"What else was not trained here is served by a script with model_fn and, if the usual ones do not suit, input_fn,\n" +
			"predict_fn and output_fn, in processes that are started again when they end or hang.",
		Example: "  clary serve digits\n  clary serve ./model --port 9000 --max-delay 2ms\n  clary serve forest/ --script inference.py --python venv/bin/python --workers 2\n  clary serve --models ./models --max-models 20\n  clary serve classifier.onnx --onnxruntime venv/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.22.0\n" +
			"  curl --data-binary @rows.csv -H 'Content-Type: text/csv' -H 'Accept: application/json' http://127.0.0.1:8080/invocations",
		Args: shell.Takes("[MODEL]"), ValidArgsFunction: a.CompleteModels(),
	}
	flags := command.Flags()
	flags.StringVar(&f.host, "host", "127.0.0.1", "the address to listen at; 0.0.0.0 is all")
	flags.IntVar(&f.port, "port", 8080, "the port; 0 is any that is free")
	flags.StringVar(&f.name, "name", "", "the model's name in requests (default: of the job, or of the folder)")
	flags.StringVar(&f.version, "model-version", "1", "the model's version in requests")
	flags.IntVar(&f.maxBatch, "max-batch", 64, "the most rows to compute at once")
	flags.DurationVar(&f.maxDelay, "max-delay", 0, "how long a row may wait for others to be computed with (default: not at all; rows that come while others are computed share a batch anyway)")
	flags.IntVar(&f.maxRequests, "max-requests", 1024, "the most requests at once; others are refused with 429")
	flags.StringVar(&f.maxPayload, "max-payload", "16MiB", "the most that a request may have; larger ones are refused with 413")
	flags.DurationVar(&f.timeout, "timeout", time.Minute, "how long a request may take")
	flags.StringVar(&f.script, "script", "", "a Python script whose model_fn loads the model, relative to its code/ folder or to here\n(default: SAGEMAKER_PROGRAM, or code/inference.py if the model has it)")
	flags.StringVar(&f.python, "python", "python3", "the script's interpreter")
	flags.IntVar(&f.workers, "workers", 1, "how many processes of the script, each with one request at a time")
	flags.DurationVar(&f.startWithin, "start-within", 4*time.Minute, "how long the script's model_fn may take")
	flags.StringVar(&f.onnxruntime, "onnxruntime", "", "onnxruntime's shared library, for an ONNX model (default: CLARY_ONNXRUNTIME, or the system's)")
	flags.StringVar(&f.models, "models", "", "a folder of many models to serve, each NAME.tar.gz or a folder NAME")
	flags.IntVar(&f.maxModels, "max-models", 100, "how many of --models are loaded at once")
	flags.StringVar(&f.maxModelBytes, "max-model-bytes", "8GiB", "the most that the files of those that are loaded may have together, unpacked")
	flags.DurationVar(&f.drain, "drain", 25*time.Second, "how long requests may go on after SIGTERM")
	command.RunE = a.WithScratch(func(ctx context.Context, s *transfer.Scratch, args []string) error {
		return a.serve(ctx, command, s, f, args)
	})
	return command
}

func (a app) serve(ctx context.Context, command *cobra.Command, s *transfer.Scratch, f serveFlags, args []string) error {
	if err := f.fromContract(a.Getenv, command, args); err != nil {
		return err
	}
	payload, err := quantity.ParseBytes(f.maxPayload)
	if err != nil {
		return shell.Usage(command, "--max-payload: %v", err)
	}
	if f.models == "" && len(args) == 0 && a.Getenv("SAGEMAKER_MULTI_MODEL") == "true" {
		f.models = filepath.Join(baseDir(a.Getenv), cmp.Or(a.Getenv("CLARY_MODELS"), "models"))
	}
	if f.models != "" {
		if len(args) > 0 {
			return shell.Usage(command, "--models %s and the model %s: give one of them", f.models, args[0])
		}
		return a.serveMany(ctx, command, s, f, int64(payload))
	}
	folder := filepath.Join(baseDir(a.Getenv), "model")
	if len(args) > 0 {
		if folder, err = served(ctx, s, args[0]); err != nil {
			return err
		}
	}
	options := modelserver.Options{
		Version: f.version, MaxBatch: f.maxBatch, MaxDelay: f.maxDelay, MaxPayload: int64(payload), MaxRequests: f.maxRequests,
		Timeout: f.timeout, Drain: f.drain, Log: slog.New(slog.NewTextHandler(a.Err, nil)),
	}
	job, closer, err := a.openModel(ctx, f, folder, &options)
	if err != nil {
		return err
	}
	options.Name = f.modelName(job, args)
	return errors.Join(a.serveOn(ctx, f, options), closer())
}

// serveOn answers until ctx ends.
func (a app) serveOn(ctx context.Context, f serveFlags, options modelserver.Options) error {
	server, err := modelserver.New(options)
	if err != nil {
		return err
	}
	return a.listen(ctx, f, options.Name, server.Serve)
}

// listen has a server answer at the address of the flags until ctx ends.
func (a app) listen(ctx context.Context, f serveFlags, name string, serve func(context.Context, net.Listener) error) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", net.JoinHostPort(f.host, strconv.Itoa(f.port)))
	if err != nil {
		return fault.New(fault.Unready, "listen: %w: choose another with --port, or end what has it", err)
	}
	fmt.Fprintf(a.Err, "serving %s at http://%s\n", name, listener.Addr())
	if err := serve(ctx, listener); err != nil {
		return err
	}
	fmt.Fprintln(a.Err, "ended: all requests are answered")
	return nil
}

// served is a local folder with the model's files, or a local ONNX model.
func served(ctx context.Context, s *transfer.Scratch, name string) (string, error) {
	if filepath.Ext(name) == onnxExtension {
		return s.Data(ctx, name)
	}
	return s.Model(ctx, name)
}

func baseDir(getenv func(string) string) string {
	if base := getenv("SAGEMAKER_BASE_DIR"); base != "" {
		return base
	}
	return "/opt/ml"
}

// fromContract takes what the place says that no flag does.
func (f *serveFlags) fromContract(getenv func(string) string, command *cobra.Command, args []string) error {
	flags := command.Flags()
	if port := getenv("SAGEMAKER_BIND_TO_PORT"); port != "" && !flags.Changed("port") {
		n, err := strconv.Atoi(port)
		if err != nil || n < 0 || n > 65535 {
			return fault.New(fault.Invalid, "SAGEMAKER_BIND_TO_PORT=%q: give a port", port)
		}
		f.port = n
	}
	if f.port < 0 || f.port > 65535 {
		return shell.Usage(command, "--port %d: give 0 to 65535", f.port)
	}
	if len(args) == 0 && f.models == "" && !flags.Changed("host") {
		if f.host = getenv("CLARY_LISTEN"); f.host == "" {
			f.host = "0.0.0.0"
		}
	}
	return nil
}

// modelName is how v2 requests name the model: as the flag says, else by its job or its folder.
func (f *serveFlags) modelName(job string, args []string) string {
	name := f.name
	if name == "" {
		name = job
	}
	if name == "" && len(args) > 0 {
		name = strings.TrimSuffix(filepath.Base(args[0]), onnxExtension)
	}
	if name = submit.NotInNames.ReplaceAllString(name, "-"); name == "" || name == "." || name == ".." {
		return "model"
	}
	return name
}
