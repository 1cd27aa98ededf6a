// Package tune has the commands of sweeps and of the tuner's own benchmarks.
package tune

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/console/report/sweep"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/importance"
	"github.com/clary-ml/clary/workload/tuning"
)

// sweepFlags say how a sweep is shown.
type sweepFlags struct {
	plots    []string
	html     string
	top      int
	watch    bool
	stale    bool
	everyone bool
}

func (a app) sweepCommand() *cobra.Command {
	var f sweepFlags
	command := &cobra.Command{
		Use:   "sweep NAME",
		Short: "Show what a sweep has found: its best trials, what matters, plots, a report",
		Long: "Show a sweep: how far it is, its best trials, and which parameters matter. --plot draws in the terminal,\n" +
			"--html writes one file with all plots that needs nothing else. The job of a trial is deleted when it has ended;\n" +
			"its model and checkpoints stay below s3://clary/jobs/NAME-tN/ until the sweep is deleted.",
		Example: `  clary sweep digits
  clary sweep digits --watch
  clary sweep digits --plot history,slices
  clary sweep digits --html report.html
  clary sweep digits -o json --plot importance`,
		Args: shell.Takes("NAME"), ValidArgsFunction: a.CompleteSweeps(),
	}
	flags := command.Flags()
	flags.StringSliceVar(&f.plots, "plot", nil, "draw "+strings.Join(plotNames, ", ")+", or all")
	flags.StringVar(&f.html, "html", "", "write a report with all plots to this file; - is standard output")
	flags.IntVar(&f.top, "top", 10, "how many of the best trials to list")
	flags.BoolVarP(&f.watch, "watch", "w", false, "follow it until it has ended")
	shell.StaleFlag(command, &f.stale)
	_ = command.RegisterFlagCompletionFunc("plot", cobra.FixedCompletions(append(plotNames, "all"), cobra.ShellCompDirectiveNoFileComp))
	_ = command.MarkFlagFilename("html", "html")
	command.RunE = func(command *cobra.Command, args []string) error {
		if slices.Contains(f.plots, "all") {
			f.plots, f.everyone = plotNames, true
		}
		for _, name := range f.plots {
			if err := shell.OneOf(command, "plot", name, append(plotNames, "all")...); err != nil {
				return err
			}
		}
		return a.With(func(ctx context.Context, c *client.Client, args []string) error {
			if f.watch {
				return a.followSweep(ctx, c, args[0])
			}
			return a.showSweep(ctx, c, args[0], f)
		})(command, args)
	}
	command.AddCommand(a.sweepControls()...)
	return command
}

// maxCasual is how many trials are read to tell of a sweep if no plot asks for them.
const maxCasual = 20_000

func (a app) showSweep(ctx context.Context, c *client.Client, name string, f sweepFlags) error {
	view, err := c.Sweep(ctx, name, client.ReadOption(f.stale))
	if err != nil {
		return err
	}
	spec, err := submit.ReadTuning(view.Job)
	if err != nil {
		return err
	}
	top, err := topTrials(ctx, c, view, spec, f)
	if err != nil {
		return err
	}
	var all *trials
	if len(f.plots) > 0 || f.html != "" || view.Sweep.Counts.Total() <= maxCasual {
		if all, err = readTrials(ctx, c, view.Job, f.stale); err != nil {
			return err
		}
	}
	if f.html != "" {
		return a.writeReport(view, all, f.html)
	}
	result := sweepToJSON(view, spec)
	if all != nil {
		result.Importance = all.importance
		if len(f.plots) > 0 {
			result.Plots = all.plotData(f.plots)
		}
	}
	return a.Print(result, func(out io.Writer) error {
		width := a.columns()
		if len(f.plots) > 0 {
			return a.drawPlots(out, all, f, width)
		}
		if err := describeSweep(out, view, spec, trialWaitsFor(ctx, c, view)); err != nil {
			return err
		}
		if len(top) > 0 {
			fmt.Fprintln(out)
			if err := bestTable(out, spec, top); err != nil {
				return err
			}
		}
		if all != nil && len(all.importance) > 0 {
			fmt.Fprintf(out, "\n%s\n", strings.Join(all.importancePlot(width), "\n"))
		}
		return nil
	})
}

// columns is how wide plots may be: as wide as the terminal, if there is one.
func (a app) columns() int {
	if a.OutTerminal {
		return a.Width()
	}
	return 100
}

// drawPlots draws each kind; if all are wanted, those that there cannot be are left out.
func (a app) drawPlots(out io.Writer, all *trials, f sweepFlags, width int) error {
	for _, name := range f.plots {
		err := all.plot(out, name, width, a.OutTerminal)
		if f.everyone && fault.Is(err, fault.Conflict) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// topTrials are the best by the first objective; with several, the Pareto front.
func topTrials(ctx context.Context, c *client.Client, view client.SweepView, spec tuning.Spec, f sweepFlags) ([]client.TrialView, error) {
	if len(spec.Objectives) > 1 || f.top <= 0 {
		return view.Best[:min(len(view.Best), max(f.top, 0))], nil
	}
	top, _, err := c.Trials(ctx, view.Job.Name, client.TrialFilter{By: "value", Limit: min(f.top, 10_000), Stale: f.stale})
	return top, err
}

// pageOfTrials is how many trials are read at once.
const pageOfTrials = 5000

// readTrials reads all trials of a sweep.
func readTrials(ctx context.Context, c *client.Client, job cluster.Job, stale bool) (*trials, error) {
	var rows []cluster.Trial
	for trial, err := range c.AllTrials(ctx, job.Name, client.TrialFilter{Limit: pageOfTrials, Stale: stale}) {
		if err != nil {
			return nil, err
		}
		if trial.Number != int64(len(rows)) {
			return nil, fault.New(fault.Unready, "sweep %s: trial %d is missing in the list of its trials: try again", job.Name, len(rows))
		}
		rows = append(rows, trial.Trial)
	}
	h, err := tuning.HistoryOf(job.Spec, slices.Values(rows))
	if err != nil {
		return nil, err
	}
	return newTrials(h, rows, importanceOf(h)), nil
}

func (a app) writeReport(view client.SweepView, all *trials, path string) error {
	s := sweep.Found{
		Job: view.Job, Sweep: view.Sweep, Sampler: view.Sampler, Stopper: view.Stopper, History: all.history, Trials: all.rows, Made: time.Now(),
	}
	for _, one := range all.importance {
		shares := sweep.Importance{Objective: one.Objective}
		for _, share := range one.Shares {
			shares.Shares = append(shares.Shares, sweep.Share{Parameter: strings.Join(share.Parameters, " × "), Share: share.Share, Error: share.Deviation})
		}
		s.Importance, s.Method = append(s.Importance, shares), one.Method
	}
	return a.WritePage(path, fmt.Sprintf("%d trials of %s", len(all.rows), view.Job.Name), func(out io.Writer) error { return sweep.Write(out, s) })
}

func describeSweep(out io.Writer, view client.SweepView, spec tuning.Spec, waits string) error {
	job, sweep := view.Job, view.Sweep
	var objectives []string
	for _, o := range spec.Objectives {
		objectives = append(objectives, direction(o))
	}
	trials := strconv.FormatInt(sweep.Counts.Total(), 10)
	if sweep.Budget.Trials > 0 {
		trials += fmt.Sprintf(" of %d", sweep.Budget.Trials)
	}
	if counts := countsText(sweep.Counts); counts != "" {
		trials += ": " + strings.ReplaceAll(counts, "  ", ", ")
	}
	closed := sweep.Closed
	if job.State.Ended() {
		closed = "" // the reason says it
	}
	var limits []string
	for _, l := range spec.Limits {
		if l.Min != nil {
			limits = append(limits, l.Name+">="+digits5(*l.Min))
		}
		if l.Max != nil {
			limits = append(limits, l.Name+"<="+digits5(*l.Max))
		}
	}
	cost := ""
	if sweep.Cost > 0 {
		cost = digits5(sweep.Cost) + shell.Suffixed(boundText(sweep.Budget.Cost), "")
	}
	ran := shell.Took(job)
	if sweep.Budget.Time > 0 {
		ran += " of " + shell.Span(sweep.Budget.Time)
	}
	parallel := fmt.Sprintf("%d at once", sweep.Parallel)
	if spec.Trial == nil {
		parallel += ", run by whoever asks"
	}
	return shell.Fields(
		out,
		"name", job.Name, "state", sweepStateText(view), "reason", job.Reason, "closed", closed, "owner", job.Owner,
		"objective", strings.Join(objectives, " "), "limit", strings.Join(limits, " "), "sampler", view.Sampler, "stopper", view.Stopper,
		"trials", trials, "waits", waits, "parallel", parallel, "ran", ran, "left", strings.TrimSuffix(leftText(view, 0), " left"), "cost", cost,
	)
}

func boundText(bound float64) string {
	if bound == 0 {
		return ""
	}
	return " of " + digits5(bound)
}

func (a app) sweepsCommand() *cobra.Command {
	var filter client.Filter
	var states []string
	command := &cobra.Command{
		Use:     "sweeps",
		Short:   "List sweeps with how far they are and their best, the newest last",
		Example: "  clary sweeps\n  clary sweeps --state running -o json",
		Args:    shell.Takes(),
	}
	flags := command.Flags()
	flags.StringSliceVar(&states, "state", nil, "only these: "+strings.Join(shell.JobStates, ", "))
	flags.StringVar(&filter.Owner, "owner", "", "only this user's")
	shell.StaleFlag(command, &filter.Stale)
	limit := flags.Int("limit", 100, "at most so many, in the order of their names")
	_ = command.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(shell.JobStates, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = func(command *cobra.Command, args []string) error {
		for _, state := range states {
			if err := shell.OneOf(command, "state", state, shell.JobStates...); err != nil {
				return err
			}
			filter.States = append(filter.States, cluster.JobState(state))
		}
		filter.Kind, filter.Limit = cluster.KindTuning, min(max(*limit, 1), 1000)
		return a.With(func(ctx context.Context, c *client.Client, _ []string) error { return a.listSweeps(ctx, c, filter) })(command, args)
	}
	return command
}

func (a app) listSweeps(ctx context.Context, c *client.Client, filter client.Filter) error {
	jobs, next, err := c.Jobs(ctx, filter)
	if err != nil {
		return err
	}
	slices.SortStableFunc(jobs, func(x, y cluster.Job) int { return int(min(max(x.Submitted-y.Submitted, -1), 1)) })
	views := make([]client.SweepView, len(jobs))
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, job := range jobs {
		group.Go(func() error {
			view, err := c.Sweep(reading, job.Name, client.ReadOption(filter.Stale))
			if fault.Is(err, fault.NotFound) { // it was deleted meanwhile
				view, err = client.SweepView{Job: job, TimeLeft: -1}, nil
			}
			views[i] = view
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	list, rows := []sweepJSON{}, [][]string{}
	for _, view := range views {
		spec, err := submit.ReadTuning(view.Job)
		if err != nil {
			return err
		}
		one := sweepToJSON(view, spec)
		one.Live = nil // clary sweep NAME shows them
		list = append(list, one)
		best, trials := "", strconv.FormatInt(view.Sweep.Counts.Total(), 10)
		if len(view.Best) > 0 {
			best = spec.Objectives[0].Name + " " + numberAt(view.Best[0].Values, 0)
		}
		if bound := view.Sweep.Budget.Trials; bound > 0 {
			trials += fmt.Sprintf(" of %d", bound)
		}
		rows = append(rows, []string{
			view.Job.Name, sweepStateText(view), trials, strconv.FormatInt(view.Sweep.Counts.Running, 10), best, view.Sampler, view.Job.Owner, shell.Took(view.Job), strings.TrimSuffix(leftText(view, 0), " left"),
		})
	}
	if next != "" {
		a.Note("there are more than %d sweeps: raise --limit", len(jobs))
	}
	return a.Print(list, func(out io.Writer) error {
		if len(rows) == 0 {
			a.Note("no sweeps: begin one with clary tune")
			return nil
		}
		return shell.Table(out, []string{"name", "state", "trials", "running", "best", "sampler", "owner", "ran", "left"}, rows)
	})
}

func (a app) trialsCommand() *cobra.Command {
	var filter client.TrialFilter
	var states []string
	command := &cobra.Command{
		Use:   "trials SWEEP",
		Short: "List a sweep's trials",
		Example: `  clary trials digits --by value --limit 20
  clary trials digits --state failed
  clary trials digits --limit 0 -o json`,
		Args: shell.Takes("SWEEP"), ValidArgsFunction: a.CompleteSweeps(),
	}
	flags := command.Flags()
	flags.StringVar(&filter.By, "by", "number", "number; value, the best first; or order, of their end")
	flags.BoolVar(&filter.Reverse, "reverse", false, "the other way round")
	flags.StringSliceVar(&states, "state", nil, "only these: "+strings.Join(trialStates, ", "))
	shell.StaleFlag(command, &filter.Stale)
	limit := flags.Int("limit", 100, "at most so many; 0 is all")
	_ = command.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{"number", "value", "order"}, cobra.ShellCompDirectiveNoFileComp))
	_ = command.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(trialStates, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := shell.OneOf(command, "by", filter.By, "number", "value", "order"); err != nil {
			return err
		}
		for _, state := range states {
			if err := shell.OneOf(command, "state", state, trialStates...); err != nil {
				return err
			}
			filter.States = append(filter.States, cluster.TrialState(state))
		}
		filter.Limit = pageOfTrials
		if *limit > 0 {
			filter.Limit = min(*limit+1, pageOfTrials) // one more tells that there are more
		}
		return a.With(func(ctx context.Context, c *client.Client, args []string) error {
			return a.listTrials(ctx, c, args[0], filter, *limit)
		})(command, args)
	}
	return command
}

// reasonWidth is how much of a trial's reason a table shows; -o json has it all.
const reasonWidth = 140

func (a app) listTrials(ctx context.Context, c *client.Client, name string, filter client.TrialFilter, limit int) error {
	view, err := c.Sweep(ctx, name, client.ReadOption(filter.Stale))
	if err != nil {
		return err
	}
	spec, err := submit.ReadTuning(view.Job)
	if err != nil {
		return err
	}
	list, rows := []trialJSON{}, [][]string{}
	names := parameterNames(spec)
	for trial, err := range c.AllTrials(ctx, name, filter) {
		if err != nil {
			return err
		}
		if limit > 0 && len(list) == limit {
			a.Note("there are more than %d trials: raise --limit", limit)
			break
		}
		list = append(list, trialToJSON(trial, spec))
		row := []string{strconv.FormatInt(trial.Number, 10), string(trial.State)}
		for i := range spec.Objectives {
			row = append(row, numberAt(trial.Values, i))
		}
		for i := range spec.Limits {
			row = append(row, numberAt(trial.Limits, i))
		}
		row = append(row, parameterCells(names, trial.Parameters)...)
		rows = append(rows, append(row, trialTook(trial.Trial), shell.Cut(shell.OneLine(trial.Reason), reasonWidth)))
	}
	return a.Print(list, func(out io.Writer) error {
		if len(rows) == 0 {
			a.Note("there is no such trial of %s", name)
			return nil
		}
		return shell.Table(out, slices.Concat([]string{"trial", "state"}, objectiveNames(spec), names, []string{"took", "reason"}), rows)
	})
}

// objectiveNames are the objectives and limits of a sweep.
func objectiveNames(spec tuning.Spec) []string {
	var names []string
	for _, o := range spec.Objectives {
		names = append(names, o.Name)
	}
	for _, l := range spec.Limits {
		names = append(names, l.Name)
	}
	return names
}

// shownPairs is how many pairs of parameters are told of.
const (
	shownPairs = 3
	leastShare = 0.005 // of a parameter or pair that is shown
)

// importanceOf is how much each parameter matters, and the pairs that matter most; nothing
// while too little is known.
func importanceOf(h *tuner.History) []importanceJSON {
	var all []importanceJSON
	for i, o := range h.Problem().Objectives {
		singles, pairs, err := importance.Of(h, i)
		if err != nil {
			continue
		}
		one := importanceJSON{Objective: o.Name, Method: importance.Method}
		pairs = slices.DeleteFunc(pairs[:min(len(pairs), shownPairs)], func(s importance.Share) bool { return s.Share < leastShare })
		for _, share := range slices.Concat(singles, pairs) {
			one.Shares = append(one.Shares, shareJSON{share.Names, share.Share, share.Error})
		}
		all = append(all, one)
	}
	return all
}
