package tune

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bench"
	"github.com/clary-ml/clary/tuner/samplers"
	"github.com/clary-ml/clary/tuner/stop"
)

// hartmannSteps are those of a whole trial of --curves.
const hartmannSteps = 81

// tuneBench is what is measured.
type tuneBench struct {
	tables  string
	bbob    bool
	curves  bool
	cost    []int // results after which suggestions are measured
	only    []string
	sampler string
	program string
	stopper stop.Spec
	seeds   int
	play    bench.Play
}

// run is one search.
func (b tuneBench) run(task bench.Task, seed uint64) (curve []float64, falls []bench.Fall, err error) {
	instance := task.Instance(seed)
	curved, ok := instance.(bench.Curved)
	if !ok {
		play := b.play
		play.Seed = seed
		curve, err = play.Run(instance)
		return curve, nil, err
	}
	return bench.Race{Make: b.play.Make, Stopper: b.stopper.Stopper, Time: float64(b.play.Trials), Workers: b.play.Workers, Seed: seed}.Run(curved)
}

func (a app) tuneBenchCommand() *cobra.Command {
	var b tuneBench
	command := &cobra.Command{
		Use:   "bench",
		Short: "Measure a sampler on tables of real training runs, or on the BBOB functions",
		Long: "Search every table of a folder with every seed, and report the mean regret after 10, 25, 50 and 100 trials:\n" +
			"0 is the best configuration of the table, 1 the median one. Tables are files NAME.csv or NAME.csv.gz whose name\n" +
			"begins with their family: hpobench_, hpolib_ or nasbench201_. With --bbob, the 24 noiseless functions are\n" +
			"searched in five dimensions, and the figures are mean decimal logarithms of the distance to the optimum. With\n" +
			"--curves, the Hartmann functions are searched by trials of 81 steps that a stopper may end early: T counts\n" +
			"whole trials' times, the figures are shares of the optimum, and \"to 1 %\" is when the best is within 1 % of it.\n" +
			"With --cost, the figures are processor time a suggestion in six dimensions, after so many results.\n" +
			"Nothing here needs a cluster.\n\n" + programHelp,
		Example: "  clary tune bench --tables tables/ --sampler tpe --trials 100 --seeds 20\n" +
			"  clary tune bench --tables tables/ --sampler cmaes --workers 8 -o json\n" +
			"  clary tune bench --bbob --sampler tpe --seeds 5 --only bbob_f08,bbob_f15\n" +
			"  clary tune bench --cost 50,200 --sampler bayes --trials 20 --seeds 3\n" +
			"  clary tune bench --bbob --program 'python3 mine.py' --seeds 5\n" +
			"  clary tune bench --curves --sampler tpe --stopper asha --workers 4 --trials 60",
		Args: shell.Takes(),
		RunE: func(command *cobra.Command, _ []string) error {
			if err := b.check(command); err != nil {
				return err
			}
			if err := a.CheckFormat(); err != nil {
				return err
			}
			if len(b.cost) > 0 {
				return a.tuneCost(command.Context(), b)
			}
			return a.tuneBench(command.Context(), b)
		},
	}
	flags := command.Flags()
	flags.StringVar(&b.tables, "tables", "", "the folder of tables")
	flags.BoolVar(&b.bbob, "bbob", false, "search the BBOB functions instead")
	flags.BoolVar(&b.curves, "curves", false, "search the Hartmann functions, by trials that report on their way")
	flags.StringVar(&b.stopper.Name, "stopper", "", "which trials end early, with --curves: "+strings.Join(stop.Names(), ", "))
	flags.IntSliceVar(&b.cost, "cost", nil, "measure suggestions after so many results instead, as in 50,200,1000")
	flags.StringSliceVar(&b.only, "only", nil, "search these tables or functions only, as in hpobench_car or bbob_f08")
	flags.StringVar(&b.program, "program", "", "a program that proposes, instead of a sampler of Clary's")
	flags.StringVar(&b.sampler, "sampler", "auto", strings.Join(samplers.Names(), ", "))
	flags.IntVar(&b.play.Trials, "trials", 100, "how many trials a search completes")
	flags.IntVar(&b.seeds, "seeds", 20, "how many searches of each table, with seeds from 0")
	flags.IntVar(&b.play.Workers, "workers", 1, "how many trials run at once, each for an exponentially distributed time")
	_ = command.RegisterFlagCompletionFunc("stopper", cobra.FixedCompletions(stop.Names(), cobra.ShellCompDirectiveNoFileComp))
	_ = command.RegisterFlagCompletionFunc("sampler", cobra.FixedCompletions(samplers.Names(), cobra.ShellCompDirectiveNoFileComp))
	return command
}

// check says what is wrong with the flags.
func (b tuneBench) check(command *cobra.Command) error {
	switch {
	case count(b.tables != "", b.bbob, b.curves, len(b.cost) > 0) != 1:
		return shell.Usage(command, "give one of --tables, --bbob, --curves and --cost")
	case b.program != "" && command.Flags().Changed("sampler"):
		return shell.Usage(command, "give either --sampler or --program")
	case b.program != "" && b.curves:
		return shell.Usage(command, "--program is not told of curves: give --sampler with --curves")
	case len(b.only) > 0 && len(b.cost) > 0:
		return shell.Usage(command, "--only names tables or functions: --cost has none")
	case b.stopper.Name != "" && !b.curves:
		return shell.Usage(command, "--stopper is for --curves")
	case b.seeds < 1 || b.seeds > 10_000:
		return shell.Usage(command, "--seeds %d: give 1 to 10000", b.seeds)
	case b.play.Trials < 1 || b.play.Trials > bench.MaxTrials:
		return shell.Usage(command, "--trials %d: give 1 to %d", b.play.Trials, bench.MaxTrials)
	case b.play.Workers < 1 || b.play.Workers > 10_000:
		return shell.Usage(command, "--workers %d: give 1 to 10000", b.play.Workers)
	}
	return nil
}

func (a app) tuneBench(ctx context.Context, b tuneBench) error {
	if _, err := b.stopper.Stopper(tuner.Fidelity{Max: hartmannSteps}); err != nil {
		return fault.New(fault.Invalid, "--stopper: %w", err)
	}
	tasks, err := b.tasks()
	if err != nil {
		return err
	}
	c, err := b.crew(ctx, a.Err)
	if err != nil {
		return err
	}
	before := processorTime()
	curves, falls, err := a.playAll(ctx, tasks, b, c)
	used := processorTime() - before
	if err := errors.Join(err, c.close()); err != nil {
		return err
	}
	if b.program != "" {
		used = c.used()
	}
	return a.showTuneBench(b, tasks, curves, falls, used/time.Duration(len(tasks)*b.seeds*b.play.Trials))
}

// playAll runs every search, as many at a time as there are processors. The curves of a
// task stand in the order of the seeds.
func (a app) playAll(ctx context.Context, tasks []bench.Task, b tuneBench, c *crew) (curves [][][]float64, falls [][][]bench.Fall, err error) {
	curves, falls = make([][][]float64, len(tasks)), make([][][]bench.Fall, len(tasks))
	line := a.NewLine()
	defer line.Clear()
	var mu sync.Mutex
	done, total := 0, len(tasks)*b.seeds
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, task := range tasks {
		curves[i], falls[i] = make([][]float64, b.seeds), make([][]bench.Fall, b.seeds)
		for seed := range b.seeds {
			group.Go(func() error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				curve, fell, err := c.search(b, task, uint64(seed))
				if err != nil {
					return fmt.Errorf("%s with seed %d: %w", task.Name(), seed, err)
				}
				mu.Lock()
				defer mu.Unlock()
				curves[i][seed], falls[i][seed] = curve, fell
				done++
				text := fmt.Sprintf("%s %d of %d searches", shell.Gauge(int64(done), int64(total), 20), done, total)
				line.Draw(text, fmt.Sprintf("%d %% of %d searches", 10*(10*done/total), total))
				return nil
			})
		}
	}
	return curves, falls, group.Wait()
}

// count is how many are true.
func count(all ...bool) int {
	n := 0
	for _, one := range all {
		if one {
			n++
		}
	}
	return n
}

// processorTime is what this process has used so far, of all its threads.
func processorTime() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// tuneBenchJSON is the measurement: by table, and by "T" and a number of trials.
type tuneBenchJSON struct {
	Tables map[string]map[string]float64 `json:"tables"`
	Errors map[string]map[string]float64 `json:"standard_errors"`
	Mean   map[string]float64            `json:"mean"`
	Within map[string]float64            `json:"time_to_1_percent,omitempty"`
	CPU    float64                       `json:"cpu_ms_per_ask"`
	Seeds  int                           `json:"seeds"`
}

func (a app) showTuneBench(b tuneBench, tasks []bench.Task, curves [][][]float64, falls [][][]bench.Fall, perAsk time.Duration) error {
	result := tuneBenchJSON{
		Tables: make(map[string]map[string]float64), Errors: make(map[string]map[string]float64), Mean: make(map[string]float64),
		Within: make(map[string]float64), CPU: float64(perAsk.Microseconds()) / 1000, Seeds: len(curves[0]),
	}
	heading := []string{"name"}
	var rows [][]string
	for i, task := range tasks {
		points := bench.Summarize(curves[i])
		means, errors := make(map[string]float64), make(map[string]float64)
		row := []string{task.Name()}
		for _, p := range points {
			key := fmt.Sprint("T", p.Trials)
			if i == 0 {
				heading = append(heading, key)
			}
			means[key], errors[key] = p.Mean, p.Error
			result.Mean[key] += p.Mean / float64(len(tasks))
			row = append(row, fmt.Sprintf("%.3f ± %.3f", p.Mean, p.Error))
		}
		if b.curves {
			result.Within[task.Name()] = bench.TimeTo(falls[i], 0.01, float64(b.play.Trials))
			row = append(row, fmt.Sprintf("%.2f", result.Within[task.Name()]))
		}
		result.Tables[task.Name()], result.Errors[task.Name()] = means, errors
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(x, y []string) int { return strings.Compare(x[0], y[0]) })
	last := []string{"mean"}
	for _, key := range heading[1:] {
		last = append(last, fmt.Sprintf("%.3f", result.Mean[key]))
	}
	if b.curves {
		heading, last = append(heading, "to 1 %"), append(last, "")
	}
	return a.Print(result, func(out io.Writer) error {
		if err := shell.Table(out, heading, append(rows, last)); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "%.3f ms of processor time a trial\n", result.CPU)
		return err
	})
}
