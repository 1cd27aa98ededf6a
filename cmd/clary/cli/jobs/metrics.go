package jobs

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
)

type seriesJSON struct {
	Task    string      `json:"task"`
	Name    string      `json:"name"`
	Attempt int32       `json:"attempt"`
	Count   int64       `json:"count"`
	Min     float64     `json:"min"`
	Max     float64     `json:"max"`
	Last    float64     `json:"last"`
	Points  []pointJSON `json:"points"`
}

type pointJSON struct {
	Time  string  `json:"time"`
	Epoch int32   `json:"epoch,omitempty"`
	Step  int64   `json:"step,omitempty"`
	Value float64 `json:"value"`
}

// metricsView is what the flags of `clary metrics` say.
type metricsView struct {
	request      client.MetricsRequest
	since, until string
	axis         string
	usage        bool
	plot, table  bool
	follow       bool
}

func (a app) metricsCommand() *cobra.Command {
	var v metricsView
	command := &cobra.Command{
		Use:   "metrics JOB [METRIC...]",
		Short: "Show a job's metrics over time, as plots or numbers; METRIC is a name or a pattern",
		Long: `Show a job's metrics over time, as plots or numbers; METRIC is a name or a pattern
like "val_*".

A task says its metrics by appending lines to the file that CLARY_METRICS names, as JSON
or as words:

  {"epoch": 3, "step": 1200, "metrics": {"loss": 0.31}}
  epoch=3 step=1200 loss=0.31

or a job's metric definitions find them in what it writes (clary train --metric). What a
task uses of its node is measured too: --usage. After a restart from a checkpoint the
series goes on from there.`,
		Example: `  clary metrics digits
  clary metrics digits "*loss" --by time
  clary metrics digits --usage --task worker-0 --since 10m
  clary metrics digits -o json | jq '.[] | {name, last}'
  clary metrics -f digits                  # drawn again until the job has ended`,
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.CompleteJobs(),
	}
	flags := command.Flags()
	flags.StringVar(&v.request.Task, "task", "", "of this task only: worker-1, or a role")
	flags.Int32Var(&v.request.Attempt, "attempt", 0, "of this attempt only; 0 joins all")
	flags.StringVar(&v.since, "since", "", "only of so long ago and later (10m, 2h, 7d), or from an instant (RFC 3339)")
	flags.StringVar(&v.until, "until", "", "only until then, given likewise")
	flags.Int32Var(&v.request.Points, "points", 0, "at most so many of each series, thinned so that the line keeps its shape; 0 is 1000")
	flags.BoolVar(&v.usage, "usage", false, "what tasks use: cores, memory, GPUs")
	flags.StringVar(&v.axis, "by", "", "draw over step, epoch or time; the first of these that the job tells if empty")
	flags.BoolVar(&v.plot, "plot", false, "draw also where the output is no terminal")
	flags.BoolVar(&v.table, "table", false, "numbers instead of plots")
	flags.BoolVarP(&v.follow, "follow", "f", false, "draw again until the job has ended")
	_ = command.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{"step", "epoch", "time"}, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		v.request.Job, v.request.Names = args[0], args[1:]
		if err := v.check(time.Now()); err != nil {
			return err
		}
		if v.follow {
			return a.followMetrics(ctx, c, v)
		}
		series, notes, err := c.Metrics(ctx, v.request)
		if err != nil {
			return err
		}
		for _, note := range notes {
			a.Note("clary: %s", shell.OneLine(note))
		}
		if len(series) == 0 && a.ForPeople() {
			return a.noMetrics(ctx, c, v.request.Job)
		}
		return a.showMetrics(v, series)
	})
	return command
}

// check reads what the flags mean.
func (v *metricsView) check(now time.Time) (err error) {
	switch shell.Axis(v.axis) {
	case "", shell.ByStep, shell.ByEpoch, shell.ByTime:
	default:
		return fault.New(fault.Invalid, "--by: %q is unknown: step, epoch or time", v.axis)
	}
	if v.usage {
		v.request.Names = append(v.request.Names, cluster.UsagePrefix+"*")
	}
	if v.request.Since, err = submit.Instant("--since", v.since, now); err != nil {
		return err
	}
	v.request.Until, err = submit.Instant("--until", v.until, now)
	return err
}

// noMetrics tells why there may be none.
func (a app) noMetrics(ctx context.Context, c *client.Client, name string) error {
	view, err := c.Job(ctx, name)
	if err != nil {
		return err
	}
	if view.Job.State.Ended() {
		a.Note("%s has said no such metrics: see clary metrics --help for how a program does", name)
	} else {
		a.Note("%s is %s and has said no such metrics yet", name, shell.StateText(view.Job))
	}
	return nil
}

func (a app) showMetrics(v metricsView, series []cluster.Series) error {
	list := make([]seriesJSON, len(series))
	for i, s := range series {
		list[i] = seriesToJSON(s)
	}
	return a.Print(list, func(out io.Writer) error {
		if (a.OutTerminal || v.plot) && !v.table {
			return a.drawMetrics(out, v, series)
		}
		var rows [][]string
		for _, s := range list {
			if n := len(s.Points); n > 0 {
				last := s.Points[n-1]
				rows = append(rows, []string{
					s.Name, s.Task, shell.Number(s.Last), shell.Number(s.Min), shell.Number(s.Max), strconv.FormatInt(s.Count, 10),
					shell.NonZero(last.Step), shell.NonZero(int64(last.Epoch)), last.Time,
				})
			}
		}
		return shell.Table(out, []string{"metric", "task", "last", "min", "max", "points", "step", "epoch", "time"}, rows)
	})
}

func seriesToJSON(s cluster.Series) seriesJSON {
	out := seriesJSON{Task: s.Task, Name: s.Name, Attempt: s.Attempt, Count: s.Count, Min: s.Min, Max: s.Max, Points: []pointJSON{}}
	for _, p := range s.Points {
		out.Points = append(out.Points, pointJSON{Time: shell.Moment(p.Time), Epoch: p.Epoch, Step: p.Step, Value: p.Value})
		out.Last = p.Value
	}
	return out
}

// drawMetrics draws one plot for each metric, with a line for each task.
func (a app) drawMetrics(out io.Writer, v metricsView, series []cluster.Series) error {
	var text strings.Builder
	for _, group := range byName(series) {
		if text.Len() > 0 {
			text.WriteString("\n")
		}
		text.WriteString(shell.Plot(group, shell.Axis(v.axis), a.Width(), a.OutTerminal))
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// byName puts the series of one metric together.
func byName(series []cluster.Series) [][]cluster.Series {
	var groups [][]cluster.Series
	for _, s := range series {
		i := slices.IndexFunc(groups, func(group []cluster.Series) bool { return group[0].Name == s.Name })
		if i < 0 {
			groups = append(groups, []cluster.Series{s})
			continue
		}
		groups[i] = append(groups[i], s)
	}
	return groups
}

// redrawEvery is how often followed metrics are read again.
const redrawEvery = 2 * time.Second

// followMetrics shows metrics again and again until the job has ended.
func (a app) followMetrics(ctx context.Context, c *client.Client, v metricsView) error {
	for {
		view, err := c.Job(ctx, v.request.Job)
		if err != nil {
			return err
		}
		series, _, err := c.Metrics(ctx, v.request)
		if err != nil {
			return err
		}
		if a.OutTerminal {
			fmt.Fprint(a.Out, "\x1b[H\x1b[2J\x1b[3J")
		}
		if a.ForPeople() {
			line, _ := submit.JobLine(view, "")
			fmt.Fprintln(a.Out, line)
		}
		if err := a.showMetrics(v, series); err != nil {
			return err
		}
		if view.Job.State.Ended() {
			return nil
		}
		select {
		case <-ctx.Done():
			return shell.Exitf(shell.ExitInterrupted, "")
		case <-time.After(redrawEvery):
		}
	}
}
