package tune

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/samplers"
	"github.com/clary-ml/clary/workload/tuning"
)

// tuneFlags describe a search; what is tried is described by the flags of clary train.
type tuneFlags struct {
	params, constraints, objectives, limits []string
	first, warmStart                        []string
	sampler, stopper, fidelity              string
	trials                                  int64
	parallel, maxFailed                     int32
	patience                                int
	maxTime                                 string
	maxCost, corePrice, gpuPrice            float64
	target                                  float64
	noiseless, study                        bool
	sagemaker                               string // a file
}

const paramHelp = "what to choose, as NAME=VALUES; see above"

const tuneLong = `Search for the parameters with which a training does best, and wait for it. Each trial is a training job: a
script, an image, a program (after --) or a declared network, described by the same flags as clary train's. Ctrl-C ends
the waiting and not the sweep.

A parameter is NAME=VALUES:
  lr=log:1e-4..1e-1         a number on a log scale (or linear:, reverse_log:, logit:)
  dropout=0.0..0.5          a number
  depth=1..8                a whole number, as both bounds are written as one; float:0..1 is any number
  units=32..512:32          in steps of 32
  act=relu,tanh             one of several, in no order
  batch=ordered:16,32,64    one of several, of which neighbours are alike
  seed=7                    always the same
"default VALUE" may follow, which is where the search starts, and "if NAME=VALUE,VALUE" for a parameter that is there
only for some values of another: 'momentum=0.0..0.99 default 0.9 if optimizer=sgd'. A text that reads as something else
stands in double quotes.

A script gets its parameters as hyperparameters (--NAME VALUE, SM_HP_NAME); in a program's arguments and variables
${NAME} stands for the value. For a declared network NAME is the path of a field: optimizer.adam.rate,
network.layers[0].dense.units.

With -f, the file is a tuning job (see clary schema tuning), whose search other flags change, or a training job to
search the parameters of. With --sagemaker it is the JSON that aws sagemaker create-hyper-parameter-tuning-job takes;
--cores, --memory and --gpus stand for its instance types.`

func (f *tuneFlags) register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringArrayVarP(&f.params, "param", "p", nil, paramHelp)
	flags.StringArrayVar(&f.constraints, "constraint", nil, "what must hold between parameters, like 'depth * width <= 4096'")
	flags.StringArrayVar(&f.objectives, "objective", nil, "min:METRIC or max:METRIC; several have a Pareto front")
	flags.StringArrayVar(&f.limits, "limit", nil, "what a good trial keeps to, as METRIC<=NUMBER or METRIC>=NUMBER")
	flags.StringArrayVar(&f.first, "try", nil, "a configuration to try first, as NAME=VALUE,NAME=VALUE")
	flags.StringArrayVar(&f.warmStart, "warm-start", nil, "a sweep that has ended, to learn from")
	flags.StringVar(&f.sampler, "sampler", "", "what proposes trials: "+strings.Join(samplers.Names(), ", ")+" (default chosen by the space)")
	flags.StringVar(&f.stopper, "stopper", "", "what ends trials that are not worth going on with: median, asha or hyperband, perhaps with options, as in asha,min=2,eta=4")
	flags.StringVar(&f.fidelity, "fidelity", "", "where a trial is complete, as MAX epochs, or step:MAX; a stopper needs it")
	flags.Int64Var(&f.trials, "trials", 0, "how many trials to begin at most (default: no bound)")
	flags.Int32Var(&f.parallel, "parallel", 1, "how many trials run at once")
	flags.StringVar(&f.maxTime, "max-time", "", "how long to search, e.g. 90m, 2h, 1d")
	flags.Float64Var(&f.maxCost, "max-cost", 0, "how much all trials may cost, in the unit of the prices")
	flags.Float64Var(&f.corePrice, "core-price", 0, "what an hour of a core costs")
	flags.Float64Var(&f.gpuPrice, "gpu-price", 0, "what an hour of a GPU costs")
	flags.Float64Var(&f.target, "target", 0, "end once the objective reaches this value")
	flags.IntVar(&f.patience, "patience", 0, "end when so many trials in a row were no better than the best")
	flags.Int32Var(&f.maxFailed, "max-failed", 0, "give up when so many trials failed and none has succeeded (default 5, or --parallel)")
	flags.BoolVar(&f.noiseless, "noiseless", false, "the same parameters give the same values again")
	flags.BoolVar(&f.study, "study", false, "run nothing: whoever asks runs the trials and tells what came of them")
	flags.StringVar(&f.sagemaker, "sagemaker", "", "a request of SageMaker's CreateHyperParameterTuningJob in JSON, which other flags change")
	_ = command.MarkFlagFilename("sagemaker", "json")
	_ = command.RegisterFlagCompletionFunc("sampler", cobra.FixedCompletions(samplers.Names(), cobra.ShellCompDirectiveNoFileComp))
}

func (a app) tuneCommand() *cobra.Command {
	var f tuneFlags
	var t templateFlags
	var job submit.JobFlags
	command := &cobra.Command{
		Use:   "tune [flags] [-- PROGRAM ARGUMENT...]",
		Short: "Search for good hyperparameters, by many trainings on the cluster",
		Long:  tuneLong,
		Example: `  clary tune --script train.py --data train.csv --param lr=log:1e-4..1e-1 --param depth=1..8 --objective min:val_loss --trials 100 --parallel 8
  clary tune -f digits.yaml --param optimizer.adam.rate=log:1e-4..1e-1 --param batch=ordered:16,32,64 --objective max:validation_accuracy --trials 40
  clary tune --param x=-5.0..5.0 --param act=relu,tanh --objective min:loss --trials 20 -- ./train --x '${x}' --act '${act}'
  clary tune -f sweep.yaml --parallel 16 --detach
  clary tune -f sweep.yaml --dry-run
  clary tune --sagemaker request.json --cores 4 --memory 8GiB`,
		Args: func(*cobra.Command, []string) error { return nil },
	}
	f.register(command)
	t.register(command)
	job.Register(command)
	for name, text := range map[string]string{
		"file":        "a tuning job, whose search other flags change, or a training job to search the parameters of",
		"seed":        "same seed and same results, same trials",
		"max-runtime": "stop each trial after so long, e.g. 90s, 2h",
		"retries":     "how often a trial is run again after it failed by its own fault",
		"dry-run":     "check everything, show the first trials and where they would run, and submit nothing",
	} {
		command.Flags().Lookup(name).Usage = text
	}
	command.RunE = func(command *cobra.Command, args []string) error {
		return a.With(func(ctx context.Context, c *client.Client, _ []string) error {
			j, folder, err := a.tuningJob(ctx, c, command, &f, &t, &job, args)
			if err != nil {
				return err
			}
			if job.DryRun {
				return a.dryTune(ctx, c, j, folder)
			}
			if j, err = a.UploadInputs(ctx, c, j, folder); err != nil {
				return err
			}
			return a.submitSweep(ctx, c, j, job.Detach || j.Held)
		})(command, args)
	}
	command.AddCommand(a.tuneBenchCommand())
	return command
}

// submitSweep submits a tuning job, says so, and follows it unless it is detached.
func (a app) submitSweep(ctx context.Context, c *client.Client, j cluster.Job, detach bool) error {
	submitted, err := c.Submit(ctx, j)
	if err != nil {
		return err
	}
	name := submitted.Job.Name
	a.endlessNote(submitted.Job)
	if !detach {
		return a.followSweep(ctx, c, name)
	}
	return a.Print(shell.JobToJSON(client.JobView{Job: submitted.Job}), func(out io.Writer) error {
		fmt.Fprintf(out, "%s is submitted; follow it with clary sweep %s --watch, end it with clary sweep stop %s\n", name, name, name)
		return nil
	})
}

// endlessNote says of a sweep without any bound that it has none.
func (a app) endlessNote(j cluster.Job) {
	s, err := submit.ReadTuning(j)
	if err != nil || s.Budget != (tuning.Budget{}) || s.Target != nil || s.Patience > 0 || s.Convergence != nil || j.MaxRuntime > 0 {
		return
	}
	a.Note("%s has no bound (--trials, --max-time, --max-cost): it goes on until clary sweep stop %s, or until its space is exhausted", j.Name, j.Name)
}

// previewed is how many trials a dry run shows.
const previewed = 8

// dryTune checks a sweep as far as that goes without beginning it.
func (a app) dryTune(ctx context.Context, c *client.Client, j cluster.Job, folder string) error {
	j, err := submit.PlaceInputs(j, folder)
	if err != nil {
		return err
	}
	answer, err := c.DryRun(ctx, j)
	if err != nil {
		return err
	}
	first, err := tuning.Preview(j.Spec, previewed)
	if err != nil {
		return err
	}
	shown := make([]map[string]any, len(first))
	for i, values := range first {
		shown[i] = plainValues(values)
	}
	spec, problems := tuning.Parse(j.Spec)
	if problems != nil {
		return fault.New(fault.Invalid, "%w", problems)
	}
	result := struct {
		Job        shell.JobJSON      `json:"job"`
		Trials     []map[string]any   `json:"trials"`
		Placements []submit.PlaceJSON `json:"placements"` // of the first trial
		Whys       []submit.WhyJSON   `json:"whys"`
	}{Job: shell.JobToJSON(client.JobView{Job: answer.Job}), Trials: shown, Placements: []submit.PlaceJSON{}, Whys: []submit.WhyJSON{}}
	if spec.Trial != nil && len(first) > 0 {
		training, err := tuning.TrainingOf(j.Spec, first[0])
		if err != nil {
			return err
		}
		placed, err := c.DryRun(ctx, cluster.Job{Kind: cluster.KindTraining, Queue: j.Queue, Priority: j.Priority, Spec: training})
		if err != nil {
			return err
		}
		result.Placements, result.Whys = submit.PlacementsToJSON(placed), submit.WhysToJSON(placed.Whys)
	}
	return a.Print(result, func(out io.Writer) error {
		names := parameterNames(spec)
		rows := make([][]string, len(shown))
		for i, values := range shown {
			rows[i] = append([]string{strconv.Itoa(i)}, parameterCells(names, values)...)
		}
		if err := shell.Table(out, append([]string{"trial"}, names...), rows); err != nil {
			return err
		}
		for _, p := range result.Placements {
			fmt.Fprintf(out, "trial 0: %s would run on %s with %s and %s\n", p.Task, p.Node, cluster.FormatCores(int64(p.Cores*1000)), cluster.FormatBytes(p.Memory))
		}
		for _, why := range result.Whys {
			fmt.Fprintf(out, "trial 0 would wait: %s\n", shell.OneLine(why.Summary))
		}
		a.Note("nothing was submitted: this was a dry run")
		return nil
	})
}
