package endpoints

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client/invoke"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/serving/route"
)

// load is one request sent many times.
type load struct {
	repeat, parallel int
	during           time.Duration
	rate             float64
}

const maxParallel = 4096

func (l *load) register(command *cobra.Command) {
	flags := command.Flags()
	flags.IntVar(&l.repeat, "repeat", 1, "send it so often, and tell how long answers took")
	flags.DurationVar(&l.during, "during", 0, "send it again and again for so long, and tell how long answers took")
	flags.IntVar(&l.parallel, "parallel", 1, "how many to have on their way at a time, with --repeat or --during")
	flags.Float64Var(&l.rate, "rate", 0, "the most a second, with --repeat or --during (default: as many as are answered)")
}

func (l *load) wanted() bool { return l.repeat > 1 || l.during > 0 }

func (l *load) check(command *cobra.Command, f *invokeFlags) error {
	changed := command.Flags().Changed
	switch {
	case l.repeat < 1:
		return shell.Usage(command, "--repeat %d: give 1 or more", l.repeat)
	case l.parallel < 1 || l.parallel > maxParallel:
		return shell.Usage(command, "--parallel %d: give 1 to %d", l.parallel, maxParallel)
	case l.during < 0 || l.rate < 0:
		return shell.Usage(command, "--during and --rate: give no negative ones")
	case changed("repeat") && changed("during"):
		return shell.Usage(command, "--repeat and --during both say when to end: leave one of them out")
	case !l.wanted() && (changed("parallel") || changed("rate")):
		return shell.Usage(command, "--parallel and --rate are for --repeat or --during: say when to end")
	case l.wanted() && f.request.Async:
		return shell.Usage(command, "--async has no time to tell of: leave it out with --repeat or --during")
	case l.wanted() && f.request.InferenceID != "":
		return shell.Usage(command, "--inference-id is one answer's: leave it out with --repeat or --during")
	}
	return nil
}

// tally is what came of many requests.
type tally struct {
	mu       sync.Mutex
	answers  route.Histogram
	mean     route.Moments
	longest  time.Duration
	variants map[string]int64
	failures map[string]int64 // by what went wrong
	failed   int64
}

func (t *tally) add(took time.Duration, variant string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.failed++
		t.failures[wrong(err)]++
		return
	}
	t.answers.Add(took)
	t.mean.Add(took.Seconds())
	t.longest = max(t.longest, took)
	t.variants[cmp.Or(variant, "-")]++
}

// wrong is an error in the words that all of its sort have in common.
func wrong(err error) string {
	if refused, ok := errors.AsType[*invoke.Refused](err); ok {
		same := *refused
		same.Request, same.RetryAfter = "", ""
		return shell.OneLine(same.Error())
	}
	return shell.OneLine(err.Error())
}

// invokeMany sends one request many times and tells how that went.
func (a app) invokeMany(ctx context.Context, caller *invoke.Caller, f invokeFlags) error {
	t := &tally{variants: map[string]int64{}, failures: map[string]int64{}}
	progress := a.NewLine()
	end := ctx
	if f.load.during > 0 {
		var cancel context.CancelFunc
		end, cancel = context.WithTimeout(ctx, f.load.during)
		defer cancel()
	}
	began := time.Now()
	var sent atomic.Int64
	var workers sync.WaitGroup
	for range f.load.parallel {
		workers.Go(func() {
			for f.load.next(end, began, &sent) {
				took, variant, err := a.one(ctx, caller, f)
				if ctx.Err() != nil {
					return
				}
				t.add(took, variant, err)
			}
		})
	}
	done := make(chan struct{})
	go func() { // ends with the workers
		workers.Wait()
		close(done)
	}()
	clock := time.NewTicker(200 * time.Millisecond)
	defer clock.Stop()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-clock.C:
			if a.Terminal {
				text := t.line(time.Since(began))
				progress.Draw(text, text)
			}
		}
	}
	progress.Clear()
	if err := a.told(t, time.Since(began)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if t.failed > 0 {
		return shell.Exitf(shell.ExitFailed, "%d of %d requests failed", t.failed, t.failed+t.answers.N())
	}
	return nil
}

// next waits until another request may be sent; false is for the end.
func (l *load) next(end context.Context, began time.Time, sent *atomic.Int64) bool {
	number := sent.Add(1)
	if end.Err() != nil || l.during == 0 && number > int64(l.repeat) {
		return false
	}
	if l.rate == 0 {
		return true
	}
	due := began.Add(time.Duration(float64(number-1) / l.rate * float64(time.Second)))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-end.Done():
		return false
	}
}

// one sends one request and reads its answer to the end.
func (a app) one(ctx context.Context, caller *invoke.Caller, f invokeFlags) (time.Duration, string, error) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	began := time.Now()
	answer, err := caller.Invoke(ctx, f.request)
	if err != nil {
		return 0, "", err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return time.Since(began), answer.Variant(), errors.Join(err, answer.Body.Close())
}

func (t *tally) line(passed time.Duration) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := fmt.Sprintf("%d answers, %.0f a second, p50 %s, p99 %s", t.answers.N(), float64(t.answers.N())/passed.Seconds(), quick(t.answers.Quantile(0.5)), quick(t.answers.Quantile(0.99)))
	if t.failed > 0 {
		text += fmt.Sprintf(", %d failed", t.failed)
	}
	return text
}

// quick is a duration in three digits.
func quick(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

type loadJSON struct {
	Requests  int64              `json:"requests"`
	Failed    int64              `json:"failed"`
	Seconds   float64            `json:"seconds"`
	PerSecond float64            `json:"per_second"`
	Latency   map[string]float64 `json:"latency"` // seconds
	Variants  map[string]int64   `json:"variants"`
	Failures  map[string]int64   `json:"failures,omitempty"`
}

var shownQuantiles = []struct {
	name string
	q    float64
}{{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}}

func (a app) told(t *tally, passed time.Duration) error {
	out := loadJSON{
		Requests: t.answers.N() + t.failed, Failed: t.failed, Seconds: passed.Seconds(), PerSecond: float64(t.answers.N()) / passed.Seconds(),
		Latency: map[string]float64{"max": t.longest.Seconds()}, Variants: t.variants, Failures: t.failures,
	}
	if t.mean.N > 0 {
		out.Latency["mean"] = t.mean.Sum / float64(t.mean.N)
	}
	for _, quantile := range shownQuantiles {
		out.Latency[quantile.name] = min(t.answers.Quantile(quantile.q), t.longest).Seconds()
	}
	return a.Print(out, func(w io.Writer) error {
		pairs := []string{"requests", fmt.Sprintf("%d in %s, %.0f answers a second", out.Requests, quick(passed), out.PerSecond), "failed", fmt.Sprint(out.Failed)}
		for _, quantile := range shownQuantiles {
			pairs = append(pairs, quantile.name, quick(min(t.answers.Quantile(quantile.q), t.longest)))
		}
		pairs = append(pairs, "max", quick(t.longest))
		if err := shell.Fields(w, pairs...); err != nil || t.answers.N() == 0 && t.failed == 0 {
			return err
		}
		fmt.Fprintln(w)
		for _, line := range bars(t.answers) {
			fmt.Fprintln(w, line)
		}
		if err := shell.Section(w, []string{"variant", "answers", "share"}, shares(t.variants, t.answers.N())); err != nil {
			return err
		}
		return shell.Section(w, []string{"failure", "requests", "share"}, shares(t.failures, out.Requests))
	})
}

// shares are counts by name with their parts of the whole, the largest first.
func shares(counts map[string]int64, all int64) [][]string {
	names := shell.SortedKeys(counts)
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(counts[b], counts[a]) })
	var rows [][]string
	for _, name := range names {
		rows = append(rows, []string{name, fmt.Sprint(counts[name]), fmt.Sprintf("%.1f %%", 100*float64(counts[name])/float64(all))})
	}
	return rows
}

const (
	barRows  = 12
	barWidth = 40
)

// bars draws a histogram between its quickest and its slowest answer, in steps that double or are alike.
func bars(h route.Histogram) []string {
	first := slices.IndexFunc(h.Counts, func(n int64) bool { return n > 0 })
	if first < 0 {
		return nil
	}
	each := (len(h.Counts)-first-1)/barRows + 1 // buckets that share a row
	var counts []int64
	var ends []time.Duration
	for from := first; from < len(h.Counts); from += each {
		to := min(from+each, len(h.Counts))
		sum := int64(0)
		for _, n := range h.Counts[from:to] {
			sum += n
		}
		counts, ends = append(counts, sum), append(ends, route.UpperOf(to-1))
	}
	most := slices.Max(counts)
	lines := make([]string, len(counts))
	for i, n := range counts {
		bar := strings.Repeat("█", int((n*barWidth+most-1)/most))
		lines[i] = strings.TrimRight(fmt.Sprintf("  under %8s %8d %s", quick(ends[i]), n, bar), " ")
	}
	return lines
}
