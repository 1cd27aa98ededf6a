package tune

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/workload/tuning"
)

// followSweep shows a sweep until it has ended, and then what it has found.
func (a app) followSweep(ctx context.Context, c *client.Client, name string) error {
	view, err := a.watchSweep(ctx, c, name)
	if ctx.Err() != nil && !view.Job.State.Ended() {
		return shell.Exitf(shell.ExitInterrupted, "%s goes on without you: follow it with clary sweep %s --watch, end it with clary sweep stop %s", name, name, name)
	}
	if err != nil {
		return err
	}
	spec, err := submit.ReadTuning(view.Job)
	if err != nil {
		return err
	}
	err = a.Print(sweepToJSON(view, spec), func(out io.Writer) error {
		if len(view.Best) == 0 {
			return nil
		}
		if err := bestTable(out, spec, view.Best); err != nil {
			return err
		}
		a.Note("see clary sweep %s, and clary sweep %s --html %s.html", name, name, name)
		return nil
	})
	if err != nil {
		return err
	}
	if view.Job.State == cluster.JobSucceeded {
		return nil
	}
	a.failureNote(ctx, c, name)
	return shell.Exitf(shell.ExitFailed, "%s", shell.Joined(fmt.Sprintf("%s %s", name, view.Job.State), shell.OneLine(view.Job.Reason)))
}

// failureNote says where to read what the first trial that failed has written.
func (a app) failureNote(ctx context.Context, c *client.Client, name string) {
	failed, _, err := c.Trials(ctx, name, client.TrialFilter{States: []cluster.TrialState{cluster.TrialFailed}, Limit: 1})
	if err == nil && len(failed) > 0 && failed[0].Job != "" {
		a.Note("see clary trials %s --state failed, and clary logs %s", name, failed[0].Job)
	}
}

// watchSweep draws a sweep at each change until it has ended.
func (a app) watchSweep(ctx context.Context, c *client.Client, name string) (client.SweepView, error) {
	drawn := &sweepDrawing{block: block{out: a.Err, width: a.Width}, line: a.NewLog(), terminal: a.Terminal}
	before, err := bestsBefore(ctx, c, name)
	if err != nil {
		return client.SweepView{}, err
	}
	ticking, stop := context.WithCancel(ctx)
	var ticker sync.WaitGroup
	defer ticker.Wait()
	defer stop()
	ticker.Go(func() { drawn.tick(ticking, c) })
	for view, err := range c.WatchSweep(ctx, name) {
		if err == nil {
			err = drawn.show(view, before)
			before = nil
		}
		if err != nil {
			return drawn.now(), err
		}
	}
	return drawn.now(), nil
}

// maxBefore is how many trials of a sweep are read for the curve of its best so far.
const maxBefore = 10_000

// bestsBefore are the trials that had completed before a sweep is watched, unless they are
// very many.
func bestsBefore(ctx context.Context, c *client.Client, name string) ([]client.TrialView, error) {
	view, err := c.Sweep(ctx, name)
	if err != nil || view.Sweep.Counts.Complete == 0 || view.Sweep.Counts.Complete > maxBefore {
		return nil, err
	}
	var before []client.TrialView
	for trial, err := range c.AllTrials(ctx, name, client.TrialFilter{States: []cluster.TrialState{cluster.TrialComplete}, By: "order"}) {
		if err != nil {
			return nil, err
		}
		before = append(before, trial)
	}
	return before, nil
}

// sweepDrawing is the newest view of a sweep, drawn as some lines on a terminal, and as a
// line of news elsewhere.
type sweepDrawing struct {
	mu       sync.Mutex
	block    block
	line     shell.Line
	terminal bool
	view     client.SweepView
	seen     time.Time // when view came
	spec     tuning.Spec
	waitsFor string    // what a trial that has no place waits for
	bests    []float64 // the best so far after each complete trial
	last     uint64    // order of the last trial in bests
}

func (d *sweepDrawing) now() client.SweepView {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view
}

func (d *sweepDrawing) show(view client.SweepView, before []client.TrialView) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.spec.Objectives == nil {
		spec, err := submit.ReadTuning(view.Job)
		if err != nil {
			return err
		}
		d.spec = spec
	}
	d.view, d.seen = view, time.Now()
	for _, trials := range [][]client.TrialView{before, view.Changed} {
		for _, trial := range trials {
			d.learn(trial)
		}
	}
	d.draw()
	return nil
}

// learn takes a trial that has ended into the curve of the best so far.
func (d *sweepDrawing) learn(trial client.TrialView) {
	if trial.State != cluster.TrialComplete || trial.Order <= d.last || len(trial.Values) == 0 || excess(d.spec, trial.Trial) > 0 {
		return
	}
	d.last = trial.Order
	o, value := d.spec.Objectives[0], trial.Values[0]
	if n := len(d.bests); n > 0 && o.Loss(d.bests[n-1]) < o.Loss(value) {
		value = d.bests[n-1]
	}
	d.bests = append(d.bests, value)
}

// excess is how far a complete trial lies outside its sweep's limits.
func excess(spec tuning.Spec, trial cluster.Trial) float64 {
	total := 0.0
	for i, l := range spec.Limits {
		if i < len(trial.Limits) {
			total += max(l.Excess(trial.Limits[i]), 0)
		}
	}
	return total
}

// tick keeps the clock going, and asks now and then what a trial without a place waits for.
func (d *sweepDrawing) tick(ctx context.Context, c *client.Client) {
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
		waitsFor := ""
		if view := d.now(); queuedTrial(view) != "" {
			d.mu.Lock()
			waitsFor = d.waitsFor
			d.mu.Unlock()
			if time.Since(last) >= submit.WhyEvery {
				last, waitsFor = time.Now(), trialWaitsFor(ctx, c, view)
			}
		}
		d.mu.Lock()
		changed := waitsFor != d.waitsFor
		d.waitsFor = waitsFor
		if d.view.Job.Name != "" && ctx.Err() == nil && (d.terminal || changed) {
			d.draw()
		}
		d.mu.Unlock()
	}
}

// queuedTrial is the job of a live trial that has no place yet; "" if all have one.
func queuedTrial(view client.SweepView) string {
	for _, trial := range view.Live {
		if trial.JobState == cluster.JobQueued {
			return trial.Job
		}
	}
	return ""
}

// trialWaitsFor says what keeps a sweep's trial from running; "" if nothing does.
func trialWaitsFor(ctx context.Context, c *client.Client, view client.SweepView) string {
	job := queuedTrial(view)
	if job == "" {
		return ""
	}
	_, whys, err := c.Why(ctx, job)
	if err != nil || len(whys) == 0 {
		return ""
	}
	return shell.OneLine(whys[0].Summary)
}

func (d *sweepDrawing) draw() {
	if !d.terminal {
		text := d.news()
		d.line.Draw(text, text)
		return
	}
	lines := []string{shell.Joined(d.view.Job.Name, sweepStateText(d.view), shell.Took(d.view.Job), leftText(d.view, time.Since(d.seen))), d.progress()}
	if line := d.bestLine(); line != "" {
		lines = append(lines, line)
	}
	if len(d.bests) > 1 {
		lines = append(lines, "      "+sparkline(d.bests, min(len(d.bests), 60, max(d.block.width()-8, 8))))
	}
	if !d.view.Job.State.Ended() {
		lines = append(lines, d.running()...)
		if d.waitsFor != "" {
			lines = append(lines, "waits for a place: "+d.waitsFor)
		}
	}
	d.block.draw(lines)
}

func sweepStateText(view client.SweepView) string {
	if view.Sweep.Paused && !view.Job.State.Ended() {
		return shell.StateText(view.Job) + " (paused)"
	}
	if view.Job.State == cluster.JobQueued {
		return shell.Joined(shell.StateText(view.Job), shell.OneLine(view.Job.Reason))
	}
	return shell.StateText(view.Job)
}

// leftText says how much longer it takes, by an estimate of some time ago.
func leftText(view client.SweepView, since time.Duration) string {
	if view.TimeLeft < 0 || view.Job.State.Ended() || view.Sweep.Paused {
		return ""
	}
	left := max(view.TimeLeft-since, 0)
	if left < time.Second {
		return "nearly done"
	}
	return "about " + shell.Span(left) + " left"
}

// progress is how many trials are in each state.
func (d *sweepDrawing) progress() string {
	sweep := d.view.Sweep
	ended := sweep.Counts.Total() - sweep.Counts.Live()
	text := fmt.Sprintf("%d trials ended", ended)
	if sweep.Budget.Trials > 0 {
		text = fmt.Sprintf("%s %d of %d trials", shell.Gauge(ended, sweep.Budget.Trials, 20), ended, sweep.Budget.Trials)
	}
	return shell.Joined(text, countsText(sweep.Counts))
}

// countsText is how many trials are in each state, those without any left out.
func countsText(c cluster.TrialCounts) string {
	var parts []string
	for _, state := range trialStates {
		if n := *c.Of(cluster.TrialState(state)); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(parts, "  ")
}

var trialStates = []string{"running", "waiting", "paused", "complete", "stopped", "failed", "infeasible", "cancelled"}

// bestLine is the best trial so far, or how large the Pareto front is.
func (d *sweepDrawing) bestLine() string {
	best := d.view.Best
	if len(best) == 0 {
		return ""
	}
	if len(d.spec.Objectives) > 1 {
		return fmt.Sprintf("front of %d, the first: %s", len(best), d.trialText(best[0]))
	}
	return "best  " + d.trialText(best[0])
}

func (d *sweepDrawing) trialText(trial client.TrialView) string {
	var parts []string
	for i, o := range d.spec.Objectives {
		if i < len(trial.Values) {
			parts = append(parts, o.Name+" "+digits5(trial.Values[i]))
		}
	}
	parts = append(parts, fmt.Sprintf("trial %d", trial.Number))
	return shell.Joined(append(parts, shell.Cut(parametersText(d.spec, trial.Parameters), shownText))...)
}

// parametersText is "lr=0.01 depth=3".
func parametersText(spec tuning.Spec, values map[string]any) string {
	var parts []string
	for _, name := range parameterNames(spec) {
		if value, active := values[name]; active {
			parts = append(parts, name+"="+valueText(value))
		}
	}
	return shell.OneLine(strings.Join(parts, " "))
}

const (
	shownLive = 6   // live trials that are drawn
	shownText = 100 // characters of the best's parameters
)

func (d *sweepDrawing) running() []string {
	var lines []string
	objective := d.spec.Objectives[0].Name
	for i, trial := range d.view.Live {
		if i == shownLive {
			lines = append(lines, fmt.Sprintf("  … and %d more", len(d.view.Live)-i))
			break
		}
		said := ""
		if value, known := trial.Progress.Metrics[objective]; known {
			said = objective + " " + digits5(value)
		} else if n := len(trial.Values); n > 0 && isFinite(trial.Values[0]) {
			said = objective + " " + digits5(trial.Values[0])
		}
		state := string(trial.State)
		if trial.State == cluster.TrialRunning && trial.JobState != "" && trial.JobState != cluster.JobRunning {
			state = string(trial.JobState)
		}
		lines = append(lines, shell.Joined(fmt.Sprintf("  #%-5d", trial.Number), state, shell.NonZeroPrefixed("epoch ", int64(trial.Progress.Epoch)), said, parametersText(d.spec, trial.Parameters)))
	}
	return lines
}

func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// news changes when there is something to say: a better trial, each tenth of the budget,
// another state.
func (d *sweepDrawing) news() string {
	sweep, ended := d.view.Sweep, d.view.Sweep.Counts.Total()-d.view.Sweep.Counts.Live()
	text := ""
	switch {
	case d.view.Job.State.Ended():
		text = shell.Joined(fmt.Sprintf("%d trials", ended), countsText(sweep.Counts), shell.Took(d.view.Job), shell.OneLine(d.view.Job.Reason))
	case sweep.Budget.Trials > 0:
		text = fmt.Sprintf("%d %% of %d trials", 10*(10*ended/sweep.Budget.Trials), sweep.Budget.Trials)
	case ended > 0: // the first, the second, the fourth, ...
		text = strconv.Itoa(1<<int(math.Log2(float64(ended)))) + " trials and more"
	}
	waits := ""
	if d.waitsFor != "" && !d.view.Job.State.Ended() {
		waits = "waits for a place: " + d.waitsFor
	}
	return shell.Joined(d.view.Job.Name, sweepStateText(d.view), text, waits, d.bestLine())
}

// sparks are eighths of a line's height.
var sparks = []rune("▁▂▃▄▅▆▇█")

// sparkline draws values as so many characters, the largest highest.
func sparkline(values []float64, width int) string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	line := make([]rune, width)
	for i := range line {
		v := values[i*(len(values)-1)/max(width-1, 1)]
		line[i] = sparks[0]
		if high > low {
			line[i] = sparks[int(min((v/2-low/2)/(high/2-low/2)*8, 7))]
		}
	}
	return string(line)
}

// block is some lines of a terminal that are drawn again and again.
type block struct {
	out   io.Writer
	width func() int
	drawn int // lines that stand above the cursor
}

func (b *block) draw(lines []string) {
	var text strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", b.drawn)
	}
	for _, line := range lines {
		fmt.Fprintf(&text, "\r\x1b[K%s\n", shell.Cut(line, b.width()-1))
	}
	text.WriteString("\x1b[J") // what stood below, when there were more lines
	_, _ = io.WriteString(b.out, text.String())
	b.drawn = len(lines)
}

// bestTable lists trials with their objectives, limits and parameters.
func bestTable(out io.Writer, spec tuning.Spec, trials []client.TrialView) error {
	heading := []string{"trial"}
	for _, o := range spec.Objectives {
		heading = append(heading, o.Name)
	}
	for _, l := range spec.Limits {
		heading = append(heading, l.Name)
	}
	names := parameterNames(spec)
	rows := make([][]string, len(trials))
	for i, trial := range trials {
		row := []string{strconv.FormatInt(trial.Number, 10)}
		for k := range spec.Objectives {
			row = append(row, numberAt(trial.Values, k))
		}
		for k := range spec.Limits {
			row = append(row, numberAt(trial.Limits, k))
		}
		row = append(row, parameterCells(names, trial.Parameters)...)
		rows[i] = append(row, trialTook(trial.Trial))
	}
	return shell.Table(out, append(append(heading, names...), "took"), rows)
}

func numberAt(values []float64, at int) string {
	if at >= len(values) || !isFinite(values[at]) {
		return ""
	}
	return digits5(values[at])
}

// trialTook is how long a trial has run, or ran.
func trialTook(t cluster.Trial) string {
	switch {
	case t.Started == 0:
		return ""
	case t.Ended == 0:
		return shell.Ago(t.Started)
	}
	return shell.Span(time.Duration(t.Ended - t.Started))
}
