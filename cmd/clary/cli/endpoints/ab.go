// Package endpoints has the commands of endpoints: deploy, invoke, change, compare.
package endpoints

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/experiment"
	"github.com/clary-ml/clary/workload/endpoint"
)

// abFlags are what an experiment is asked for with.
type abFlags struct {
	x       endpoint.Experiment
	metric  string
	between string
	guards  []string
	stop    bool
	reason  string
	watch   bool
	detach  bool
}

func (a app) abCommand() *cobra.Command {
	var f abFlags
	command := &cobra.Command{
		Use: "ab ENDPOINT", Short: "Compare two variants of an endpoint, until there is an answer",
		Long: "Compare two variants of an endpoint on latency, errors or rewards, until there is an answer. With --metric a test begins, and is\n" +
			"shown until it ends; without it the one that is in progress is shown, or the last. It may be looked at, and acted on, at any\n" +
			"time: the chance of calling a difference where there is none stays below --alpha. B may be a variant that gets copies of\n" +
			"requests (shadow). With --promote the better variant takes the other's requests by itself.",
		Example: "  clary ab churn --metric latency --between blue,green --margin 0.02\n" +
			"  clary ab churn --metric reward --guard errors=0.001 --promote --detach\n  clary ab churn --watch\n  clary ab churn -o json\n  clary ab churn --stop",
		Args: shell.Takes("ENDPOINT"), ValidArgsFunction: a.completeEndpoints(),
	}
	flags := command.Flags()
	flags.StringVar(&f.metric, "metric", "", "begin a test on latency, errors or reward")
	flags.StringVar(&f.between, "between", "", "A,B: the variant that stays unless B is better, and B (default: the two that have requests)")
	flags.Float64Var(&f.x.Margin, "margin", 0, "end also when the difference is smaller: a share of latency (0.02), of requests (0.001), or a reward")
	flags.StringArrayVar(&f.guards, "guard", nil, "METRIC or METRIC=MARGIN that must not be worse for B to be better")
	flags.BoolVar(&f.x.Promote, "promote", false, "have B take A's requests when it is better")
	flags.BoolVar(&f.x.Binary, "binary", false, "rewards are 0 or 1")
	flags.Float64Var(&f.x.Alpha, "alpha", 0, "chance of calling a difference where there is none (default 0.05)")
	flags.Int64Var(&f.x.Least, "least", 0, "requests of each variant before there is an answer (default 200)")
	flags.Int64Var(&f.x.Most, "most", 0, "requests of both after which it ends without one")
	flags.Int64Var(&f.x.Expect, "expect", 0, "requests of both that it is likely to take, where it is the sharpest (default 10000)")
	flags.BoolVar(&f.stop, "stop", false, "end the test in progress")
	flags.StringVar(&f.reason, "reason", "", "why it is stopped")
	flags.BoolVarP(&f.watch, "watch", "w", false, "show it again whenever it changes, until it ends")
	flags.BoolVarP(&f.detach, "detach", "d", false, "begin it, and do not wait for its answer")
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := f.read(command); err != nil {
			return err
		}
		return a.With(func(ctx context.Context, c *client.Client, args []string) error { return a.ab(ctx, c, args[0], f) })(command, args)
	}
	return command
}

// read checks what goes together.
func (f *abFlags) read(command *cobra.Command) error {
	for _, name := range []string{"between", "margin", "guard", "promote", "binary", "alpha", "least", "most", "expect", "detach"} {
		if f.metric == "" && command.Flags().Changed(name) {
			return shell.Usage(command, "--%s is for a test that begins: give --metric too", name)
		}
	}
	switch {
	case f.stop && (f.metric != "" || f.watch):
		return shell.Usage(command, "--stop goes alone")
	case f.reason != "" && !f.stop:
		return shell.Usage(command, "--reason is for --stop")
	}
	f.x.Metric = experiment.Metric(f.metric)
	if f.between != "" {
		var both bool
		if f.x.A, f.x.B, both = strings.Cut(f.between, ","); !both || f.x.A == "" || f.x.B == "" {
			return shell.Usage(command, "--between %q is not A,B, such as blue,green", cluster.Clip(f.between))
		}
	}
	f.x.Guards = nil
	for _, text := range f.guards {
		metric, margin, has := strings.Cut(text, "=")
		guard := experiment.Guard{Metric: experiment.Metric(metric)}
		if has {
			var err error
			if guard.Margin, err = strconv.ParseFloat(margin, 64); err != nil {
				return shell.Usage(command, "--guard %q is not METRIC=MARGIN, such as errors=0.001", cluster.Clip(text))
			}
		}
		f.x.Guards = append(f.x.Guards, guard)
	}
	if f.metric == "" {
		return nil
	}
	if problems := f.x.Validate(); len(problems) > 0 {
		return fault.New(fault.Invalid, "%w", problems)
	}
	return nil
}

func (a app) ab(ctx context.Context, c *client.Client, name string, f abFlags) error {
	var view client.EndpointView
	var err error
	switch {
	case f.stop:
		view, err = c.EndExperiment(ctx, name, f.reason)
	case f.metric != "":
		var text []byte
		if text, err = json.Marshal(f.x); err == nil {
			view, err = c.StartExperiment(ctx, name, text)
		}
	default:
		view, err = c.Endpoint(ctx, name)
	}
	if err != nil {
		return err
	}
	if view.Endpoint.Experiment == nil {
		return fault.New(fault.NotFound, "endpoint %s has had no A/B test: begin one with clary ab %s --metric latency", name, name)
	}
	if view.Endpoint.Experiment.Ended == 0 && (f.watch || f.metric != "" && !f.detach) {
		return a.followAB(ctx, c, name, f.watch || a.OutTerminal)
	}
	return a.printAB(view, false)
}

// followAB shows a test until it ends: all that changes, or at the end alone.
func (a app) followAB(ctx context.Context, c *client.Client, name string, all bool) error {
	line := a.NewLog()
	for view, err := range c.WatchEndpoint(ctx, name) {
		if ctx.Err() != nil {
			return shell.Exitf(shell.ExitInterrupted, "the test goes on without you: see clary ab %s", name)
		}
		if err != nil {
			return err
		}
		x := view.Endpoint.Experiment
		if x == nil || x.Ended != 0 || view.Job.State.Ended() {
			return a.printAB(view, all)
		}
		if all {
			if err := a.printAB(view, true); err != nil {
				return err
			}
			continue
		}
		if shown, err := abOf(view); err == nil {
			line.Draw("", fmt.Sprintf("%s  %s", name, shown.Why))
		}
	}
	return nil
}

// abJSON is an A/B test as scripts see it.
type abJSON struct {
	Endpoint string `json:"endpoint"`
	experiment.Verdict
	Margin   float64 `json:"margin,omitempty"`
	Binary   bool    `json:"binary,omitempty"`
	Mirrored bool    `json:"mirrored,omitempty"`
	Promote  bool    `json:"promote,omitempty"`
	By       string  `json:"by,omitempty"`
	Started  string  `json:"started,omitempty"`
	Ended    string  `json:"ended,omitempty"`
	Result   string  `json:"result,omitempty"` // what it ended with
	// Rate is how many requests the two have in a second.
	Rate float64 `json:"rate,omitempty"`
}

func abOf(view client.EndpointView) (abJSON, error) {
	x, t, begun, err := endpoint.Testing(view.Endpoint)
	if err != nil || !begun {
		return abJSON{}, err
	}
	stands := view.Endpoint.Experiment
	out := abJSON{
		Endpoint: view.Job.Name, Verdict: x.Judge(t.A.Arm(x.A), t.B.Arm(x.B)), Margin: x.Margin, Binary: x.Binary, Mirrored: t.Mirrored, Promote: x.Promote, By: stands.By,
		Started: shell.Moment(stands.Started), Ended: shell.Moment(stands.Ended), Result: stands.Verdict,
	}
	for _, name := range []string{x.A, x.B} {
		out.Rate += view.Fleet(name, t.Generation).Requests
	}
	if t.Promoting && stands.Ended == 0 {
		out.Why += ": it gets as many replicas first"
	}
	return out, nil
}

func (a app) printAB(view client.EndpointView, over bool) error {
	shown, err := abOf(view)
	if err != nil {
		return err
	}
	return a.Print(shown, func(out io.Writer) error {
		if over && a.OutTerminal {
			fmt.Fprint(out, "\x1b[H\x1b[2J")
		}
		return showAB(out, shown)
	})
}

func showAB(out io.Writer, ab abJSON) error {
	rows := [][]string{}
	for _, side := range []experiment.Side{ab.A, ab.B} {
		rows = append(rows, []string{side.Name, strconv.FormatInt(side.N, 10), sideText(ab.Metric, side)})
	}
	kind := string(ab.Metric)
	if ab.Mirrored {
		kind += ", " + ab.B.Name + " gets copies"
	}
	left := ""
	if ab.Ended == "" && ab.More > 0 && ab.Rate > 0 {
		left = "about " + shell.Span(time.Duration(float64(ab.More)/ab.Rate*float64(time.Second))) + " at this rate"
	}
	state := "goes on"
	if ab.Ended != "" {
		state = "ended"
	}
	if err := shell.Fields(
		out, "endpoint", ab.Endpoint, "test", kind, "state", state, "says", shell.OneLine(cmp.Or(ab.Result, ab.Why)), "needs", left,
		"difference", differenceText(ab), "p", fmt.Sprintf("%.3g, however often it was looked at", ab.P),
	); err != nil {
		return err
	}
	if err := shell.Section(out, []string{"variant", "n", string(ab.Metric)}, rows); err != nil {
		return err
	}
	if plot := intervalPlot(ab, 48); plot != "" {
		fmt.Fprintf(out, "\n%s\n", plot)
	}
	return nil
}

func sideText(metric experiment.Metric, side experiment.Side) string {
	switch {
	case side.N == 0:
		return "-"
	case metric == experiment.Latency:
		return time.Duration(side.Value * float64(time.Second)).Round(time.Microsecond).String()
	case metric == experiment.Errors:
		return percent(side.Value)
	}
	return fmt.Sprintf("%.4g", side.Value)
}

// relative says that a test's difference is a share of A's value.
func (ab abJSON) relative() bool { return ab.Metric != experiment.Reward || ab.Binary }

func (ab abJSON) amount(x float64) string {
	if ab.relative() {
		return fmt.Sprintf("%+.3g%%", 100*x)
	}
	return fmt.Sprintf("%+.3g", x)
}

func differenceText(ab abJSON) string {
	if ab.Estimate == nil {
		return ""
	}
	text := ab.amount(*ab.Estimate)
	if ab.Low != nil && ab.High != nil {
		text += fmt.Sprintf(", from %s to %s", ab.amount(*ab.Low), ab.amount(*ab.High))
	}
	return text
}

// intervalPlot draws where the difference lies beside none:
//
//	-20%        ├────●────┤    │                      +20%
func intervalPlot(ab abJSON, width int) string {
	if ab.Low == nil || ab.High == nil || ab.Estimate == nil {
		return ""
	}
	reach := max(-*ab.Low, *ab.High, 1e-12) * 1.05
	at := func(x float64) int {
		return min(max(int((x/reach+1)/2*float64(width-1)+0.5), 0), width-1)
	}
	cells := []rune(strings.Repeat(" ", width))
	for i := at(*ab.Low); i <= at(*ab.High); i++ {
		cells[i] = '─'
	}
	cells[at(0)] = '│'
	cells[at(*ab.Low)], cells[at(*ab.High)] = '├', '┤'
	cells[at(*ab.Estimate)] = '●'
	return fmt.Sprintf("%s %s %s   (%s less %s)", ab.amount(-reach), string(cells), ab.amount(reach), ab.B.Name, ab.A.Name)
}
