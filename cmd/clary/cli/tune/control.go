package tune

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
)

// sweepControls are the commands that change a sweep while it goes on.
func (a app) sweepControls() []*cobra.Command {
	return []*cobra.Command{
		a.sweepSwitch("pause", "Begin no new trial until it is resumed; those that run go on", true, "%s pauses: %s"),
		a.sweepSwitch("resume", "Go on after a pause", false, "%s goes on: %s"),
		a.sweepExtendCommand(), a.sweepParallelCommand(), a.sweepAddCommand(), a.sweepStopCommand(),
	}
}

// control changes a sweep and says how it stands then.
func (a app) control(ctx context.Context, c *client.Client, name string, change client.SweepControl, said string) error {
	view, err := c.ControlSweep(ctx, name, change)
	if err != nil {
		return err
	}
	spec, err := submit.ReadTuning(view.Job)
	if err != nil {
		return err
	}
	return a.Print(sweepToJSON(view, spec), func(out io.Writer) error {
		text := fmt.Sprintf("%d trials", view.Sweep.Counts.Total())
		if counts := countsText(view.Sweep.Counts); counts != "" {
			text = counts
		}
		_, err := fmt.Fprintf(out, said+"\n", name, text)
		return err
	})
}

func (a app) sweepSwitch(word, short string, pause bool, said string) *cobra.Command {
	return &cobra.Command{
		Use: word + " NAME", Short: short, Example: "  clary sweep " + word + " digits",
		Args: shell.Takes("NAME"), ValidArgsFunction: a.CompleteSweeps(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			return a.control(ctx, c, args[0], client.SweepControl{Pause: &pause}, said)
		}),
	}
}

func (a app) sweepExtendCommand() *cobra.Command {
	var trials int64
	var maxTime string
	var cost float64
	command := &cobra.Command{
		Use: "extend NAME", Short: "Set new bounds of a sweep's budget, in all and not added to the old",
		Example: "  clary sweep extend digits --trials 200\n  clary sweep extend digits --max-time 12h",
		Args:    shell.Takes("NAME"), ValidArgsFunction: a.CompleteSweeps(),
	}
	flags := command.Flags()
	flags.Int64Var(&trials, "trials", 0, "how many trials to begin at most; 0 is no bound")
	flags.StringVar(&maxTime, "max-time", "", "how long to search, e.g. 90m, 2h, 1d; 0s is no bound")
	flags.Float64Var(&cost, "max-cost", 0, "how much all trials may cost; 0 is no bound")
	command.RunE = func(command *cobra.Command, args []string) error {
		var change client.SweepControl
		if command.Flags().Changed("trials") {
			change.Trials = &trials
		}
		if command.Flags().Changed("max-cost") {
			change.Cost = &cost
		}
		if maxTime != "" {
			d, err := quantity.ParseDuration(maxTime)
			if err != nil {
				return fault.New(fault.Invalid, "--max-time: %w", err)
			}
			bound := time.Duration(d)
			change.Time = &bound
		}
		if change == (client.SweepControl{}) {
			return shell.Usage(command, "say what to extend: --trials, --max-time or --max-cost")
		}
		return a.With(func(ctx context.Context, c *client.Client, args []string) error {
			return a.control(ctx, c, args[0], change, "%s has new bounds: %s")
		})(command, args)
	}
	return command
}

func (a app) sweepParallelCommand() *cobra.Command {
	return &cobra.Command{
		Use: "parallel NAME COUNT", Short: "Change how many of a sweep's trials run at once",
		Example: "  clary sweep parallel digits 16",
		Args:    shell.Takes("NAME", "COUNT"), ValidArgsFunction: a.CompleteSweeps(),
		RunE: func(command *cobra.Command, args []string) error {
			n, err := strconv.ParseInt(args[1], 10, 32)
			if err != nil {
				return shell.Usage(command, "COUNT: %q is no whole number", args[1])
			}
			parallel := int32(n)
			return a.With(func(ctx context.Context, c *client.Client, args []string) error {
				return a.control(ctx, c, args[0], client.SweepControl{Parallel: &parallel}, fmt.Sprintf("%%s runs up to %d trials at once: %%s", parallel))
			})(command, args)
		},
	}
}

func (a app) sweepAddCommand() *cobra.Command {
	return &cobra.Command{
		Use: "add NAME PARAMETER=VALUE...", Short: "Add a trial by hand; it runs before what the search proposes",
		Example: "  clary sweep add digits lr=0.01 depth=3 act=relu",
		Args:    shell.Takes("NAME", "PARAMETER=VALUE..."), ValidArgsFunction: a.CompleteSweeps(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			values, err := assignments(args[1:])
			if err != nil {
				return err
			}
			trial, err := c.AddTrial(ctx, args[0], plainValues(values))
			if err != nil {
				return err
			}
			view, err := c.Sweep(ctx, args[0])
			if err != nil {
				return err
			}
			spec, err := submit.ReadTuning(view.Job)
			if err != nil {
				return err
			}
			return a.Print(trialToJSON(trial, spec), func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "trial %d of %s: %s\n", trial.Number, args[0], parametersText(spec, trial.Parameters))
				return err
			})
		}),
	}
}

func (a app) sweepStopCommand() *cobra.Command {
	var now bool
	command := &cobra.Command{
		Use: "stop NAME", Short: "End a sweep: begin no more trials, and let those that run finish",
		Long:    "End a sweep: it begins no more trials, and succeeds when those that run have finished. With --now they are\ncancelled with it, as clary cancel does.",
		Example: "  clary sweep stop digits\n  clary sweep stop digits --now",
		Args:    shell.Takes("NAME"), ValidArgsFunction: a.CompleteSweeps(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			if now {
				return a.ForEachJob(args, func(name string) (cluster.Job, error) { return c.Cancel(ctx, name, "stopped") }, "%s is to end")
			}
			return a.control(ctx, c, args[0], client.SweepControl{Close: true}, "%s begins no more trials: %s")
		}),
	}
	command.Flags().BoolVar(&now, "now", false, "cancel the trials that run")
	return command
}
