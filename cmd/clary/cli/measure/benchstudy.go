package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/space"
	"github.com/clary-ml/clary/workload/tuning"
)

// benchStudy is how a study is filled with results.
type benchStudy struct {
	name       string
	results    int
	workers    int
	ask        int
	sampler    string
	parameters int
	windows    int
}

// studyJSON is what filling a study took.
type studyJSON struct {
	Study     string       `json:"study"`
	Results   int64        `json:"results"`  // in the study at the end
	FirstMs   float64      `json:"first_ms"` // until the first answer to an ask, by whoever was first
	Workers   int          `json:"workers"`
	Seconds   float64      `json:"seconds"`
	PerSecond float64      `json:"per_second"`
	Windows   []windowJSON `json:"windows"`
}

// windowJSON is a part of the run.
type windowJSON struct {
	Results   int64   `json:"results"` // in the study when it ended
	PerSecond float64 `json:"per_second"`
	AskP50    float64 `json:"ask_p50_ms"`
	AskP99    float64 `json:"ask_p99_ms"`
	TellP50   float64 `json:"tell_p50_ms"`
	TellP99   float64 `json:"tell_p99_ms"`
}

func (a app) benchStudyCommand() *cobra.Command {
	var b benchStudy
	command := &cobra.Command{
		Use:   "study",
		Short: "How fast a study takes results, and how soon it answers an ask",
		Long: "Let workers ask a study for trials and tell their results as fast as it takes them, each with a connection of\n" +
			"its own, and measure how long each ask and each tell takes until it is durable. The study has continuous\n" +
			"parameters and a quadratic bowl of an objective. It is deleted afterwards, unless it was given a name.",
		Example: "  clary bench study --results 10000 --workers 16 -o json\n  clary bench study --study big --results 1000 --workers 1",
		Args:    shell.Takes(),
		RunE: func(command *cobra.Command, _ []string) error {
			switch {
			case b.results < 1 || b.results > cluster.MaxTrials/2 || b.workers < 1 || b.workers > 4096:
				return shell.Usage(command, "--results takes 1 to %d, --workers 1 to 4096", cluster.MaxTrials/2)
			case b.ask < 1 || b.ask > tuning.MaxAsk || b.parameters < 1 || b.parameters > 100 || b.windows < 1 || b.windows > 1000:
				return shell.Usage(command, "--ask takes 1 to %d, --parameters 1 to 100, --windows 1 to 1000", tuning.MaxAsk)
			}
			return a.benchStudy(command.Context(), b)
		},
	}
	flags := command.Flags()
	flags.StringVar(&b.name, "study", "", "begin a study of this name, or go on with it, and keep it")
	flags.IntVar(&b.results, "results", 10_000, "how many results are told")
	flags.IntVar(&b.workers, "workers", 16, "how many ask and tell at the same time")
	flags.IntVar(&b.ask, "ask", 1, "how many trials a worker asks for at a time")
	flags.StringVar(&b.sampler, "sampler", "auto", "what proposes trials")
	flags.IntVar(&b.parameters, "parameters", 4, "of the study's space")
	flags.IntVar(&b.windows, "windows", 10, "parts of the run that are reported apart")
	return command
}

// spec is a study without an end: whoever measures says when.
func (b benchStudy) spec() ([]byte, error) {
	low, high := 0.0, 1.0
	s := tuning.Spec{Objectives: []tuner.Objective{{Name: "loss"}}, Sampler: b.sampler, Seed: 1}
	for i := range b.parameters {
		s.Space.Parameters = append(s.Space.Parameters, tuning.Parameter{
			Parameter: space.Parameter{Name: fmt.Sprintf("x%d", i), Type: space.Float, Low: &low, High: &high},
		})
	}
	s.Budget.Trials = cluster.MaxTrials
	if problems := s.Validate(); len(problems) > 0 {
		return nil, fault.New(fault.Invalid, "%w", problems)
	}
	return json.Marshal(s)
}

func (a app) benchStudy(ctx context.Context, b benchStudy) (err error) {
	defer runtime.KeepAlive(make([]byte, ballast))
	clients, closeAll, err := a.connectMany(ctx, b.workers)
	defer closeAll()
	if err != nil {
		return err
	}
	if b.name == "" {
		b.name = submit.FreshName("bench")
		defer func() { err = errors.Join(err, vanish(context.WithoutCancel(ctx), clients[0], b.name)) }()
	}
	if _, err := clients[0].Sweep(ctx, b.name); fault.Is(err, fault.NotFound) {
		text, err := b.spec()
		if err != nil {
			return err
		}
		if _, err := clients[0].Submit(ctx, cluster.Job{Name: b.name, Kind: cluster.KindTuning, Spec: text}); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := studyBegins(ctx, clients[0], b.name); err != nil {
		return err
	}
	run, err := b.fill(ctx, clients)
	if err != nil {
		return err
	}
	view, err := clients[0].Sweep(ctx, b.name)
	if err != nil {
		return err
	}
	return a.showStudy(b.summary(run, view.Sweep.Counts.Complete))
}

// studyBegins waits until a study is running.
func studyBegins(ctx context.Context, c *client.Client, name string) error {
	for view, err := range c.WatchSweep(ctx, name) {
		if err != nil || view.Job.State == cluster.JobRunning {
			return err
		}
		if view.Job.State.Ended() {
			return fault.New(fault.Conflict, "--study: %s has %s: it takes no more results", name, view.Job.State)
		}
	}
	return nil
}

// studyRun is what workers have measured.
type studyRun struct {
	began, ended time.Time
	first        time.Duration
	workers      []studyWorker
}

// studyWorker is one worker, and the times that its calls took.
type studyWorker struct {
	first       time.Duration
	asks, tells []timed
}

type timed struct {
	at   time.Time
	took time.Duration
}

// fill has each worker ask and tell until all results are told.
func (b benchStudy) fill(ctx context.Context, clients []*client.Client) (studyRun, error) {
	run := studyRun{began: time.Now(), workers: make([]studyWorker, len(clients))}
	group, ctx := errgroup.WithContext(ctx)
	for i, c := range clients {
		share := b.results / len(clients)
		if i < b.results%len(clients) {
			share++
		}
		group.Go(func() error { return run.workers[i].work(ctx, c, b, fmt.Sprintf("worker-%d", i), share) })
	}
	err := group.Wait()
	run.ended = time.Now()
	for i, w := range run.workers {
		if i == 0 || w.first < run.first {
			run.first = w.first
		}
	}
	return run, err
}

func (w *studyWorker) work(ctx context.Context, c *client.Client, b benchStudy, name string, share int) error {
	for told := 0; told < share; {
		before := time.Now()
		asked, err := c.Ask(ctx, b.name, name, min(b.ask, share-told), 0)
		if err != nil {
			return err
		}
		took := time.Since(before)
		if w.first == 0 {
			w.first = took
		}
		w.asks = append(w.asks, timed{time.Now(), took})
		if len(asked.Trials) == 0 {
			if asked.Done {
				return fault.New(fault.Conflict, "study %s gives no more trials: %s", b.name, asked.Reason)
			}
			select {
			case <-time.After(max(asked.RetryAfter, 10*time.Millisecond)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for _, trial := range asked.Trials {
			before := time.Now()
			if _, err := c.Tell(ctx, b.name, trial.Number, name, client.TrialResult{Metrics: map[string]float64{"loss": bowl(trial.Config)}}); err != nil {
				return err
			}
			w.tells = append(w.tells, timed{time.Now(), time.Since(before)})
			told++
		}
	}
	return nil
}

// bowl is the objective.
func bowl(x []float64) float64 {
	sum := 0.0
	for i, v := range x {
		d := v - 0.3 - 0.1*float64(i%4)
		sum += d * d
	}
	return sum
}

// summary cuts the run into parts of as many results each.
func (b benchStudy) summary(run studyRun, results int64) studyJSON {
	var asks, tells []timed
	for _, w := range run.workers {
		asks, tells = append(asks, w.asks...), append(tells, w.tells...)
	}
	byTime := func(a, b timed) int { return a.at.Compare(b.at) }
	slices.SortFunc(asks, byTime)
	slices.SortFunc(tells, byTime)
	seconds := run.ended.Sub(run.began).Seconds()
	out := studyJSON{
		Study: b.name, Results: results, FirstMs: milliseconds(run.first), Workers: b.workers,
		Seconds: math.Round(seconds*100) / 100, PerSecond: math.Round(float64(len(tells))/seconds*10) / 10,
	}
	before, since := results-int64(len(tells)), run.began
	for part := range slices.Chunk(tells, (len(tells)+b.windows-1)/b.windows) {
		last := part[len(part)-1].at
		n, _ := slices.BinarySearchFunc(asks, last, func(t timed, at time.Time) int { return t.at.Compare(at) })
		if last.Equal(tells[len(tells)-1].at) {
			n = len(asks)
		}
		before += int64(len(part))
		w := windowJSON{Results: before, PerSecond: math.Round(float64(len(part))/last.Sub(since).Seconds()*10) / 10}
		w.AskP50, w.AskP99 = halfAndMost(asks[:n])
		w.TellP50, w.TellP99 = halfAndMost(part)
		out.Windows = append(out.Windows, w)
		asks, since = asks[n:], last
	}
	return out
}

func halfAndMost(calls []timed) (p50, p99 float64) {
	sorted := make([]time.Duration, len(calls))
	for i, c := range calls {
		sorted[i] = c.took
	}
	slices.Sort(sorted)
	return quantile(sorted, 0.5), quantile(sorted, 0.99)
}

func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}

func (a app) showStudy(r studyJSON) error {
	return a.Print(r, func(out io.Writer) error {
		if _, err := fmt.Fprintf(out, "study %s has %d results; %d workers, %.1f s, %.0f results a second; the first answer came after %.1f ms\n\n",
			r.Study, r.Results, r.Workers, r.Seconds, r.PerSecond, r.FirstMs); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%9s %10s %10s %10s %11s %11s\n", "results", "a second", "ask p50", "ask p99", "tell p50", "tell p99"); err != nil {
			return err
		}
		for _, w := range r.Windows {
			if _, err := fmt.Fprintf(out, "%9d %10.0f %7.2f ms %7.2f ms %8.2f ms %8.2f ms\n", w.Results, w.PerSecond, w.AskP50, w.AskP99, w.TellP50, w.TellP99); err != nil {
				return err
			}
		}
		return nil
	})
}
