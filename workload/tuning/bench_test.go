package tuning_test

import (
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/workload/tuning"
)

// studyOf is a study of four parameters, without an end.
func studyOf(sampler string) cluster.Job {
	spec := fmt.Sprintf(`{"space": {"parameters": [
		{"name": "a", "type": "float", "low": 0, "high": 1}, {"name": "b", "type": "float", "low": 1e-4, "high": 1, "scale": "log"},
		{"name": "c", "type": "float", "low": 0, "high": 1}, {"name": "d", "type": "float", "low": 0, "high": 1}]},
		"objectives": [{"name": "loss"}], "sampler": %q, "seed": 1}`, sampler)
	return cluster.Job{Name: "study", Kind: cluster.KindTuning, Owner: "ann", Queue: "default", Spec: []byte(spec), State: cluster.JobRunning, Revision: 1}
}

// toldRows are the rows of a study with so many results, told in the order of their numbers
// but for some neighbours.
func toldRows(n int) (cluster.Sweep, iter.Seq[cluster.Trial]) {
	sweep := cluster.Sweep{
		Job: "study", Parallel: cluster.MaxParallel, Next: int64(n), Order: uint64(n), Started: 1, Revision: 1,
		Counts: cluster.TrialCounts{Complete: int64(n)},
	}
	return sweep, func(yield func(cluster.Trial) bool) {
		r := rand.New(rand.NewPCG(1, 2))
		for i := range n {
			c := []float64{r.Float64(), 1e-4 + 0.999*r.Float64(), r.Float64(), r.Float64()}
			order := i + 1
			if pair := i ^ 1; pair < n {
				order = pair + 1
			}
			if !yield(cluster.Trial{
				Sweep: "study", Number: int64(i), Config: c, State: cluster.TrialComplete, Values: []float64{c[0]*c[0] + c[2]*c[3]},
				Order: uint64(order), Since: uint64(max(i-2, 0)), Worker: "w", Runs: 1, Revision: 1,
			}) {
				return
			}
		}
	}
}

// BenchmarkStudy is what a study costs that has so many results: memory and processor time to
// build its search, and to answer a worker.
func BenchmarkStudy(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		for _, sampler := range []string{"quasi", "cmaes", "tpe", "bayes"} {
			b.Run(fmt.Sprintf("%s/%d", sampler, n), func(b *testing.B) { benchStudy(b, sampler, n) })
		}
	}
}

func benchStudy(b *testing.B, sampler string, n int) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	sweep, rows := toldRows(n)
	began := processor(b)
	s, err := tuning.NewSearch(studyOf(sampler), sweep, rows, nil)
	if err != nil {
		b.Fatal(err)
	}
	built := processor(b) - began
	first := askOnce(b, s)
	runtime.GC()
	runtime.ReadMemStats(&after)
	var asks []time.Duration
	for b.Loop() {
		asks = append(asks, askOnce(b, s))
	}
	slices.Sort(asks)
	b.ReportMetric(float64(after.HeapAlloc-min(before.HeapAlloc, after.HeapAlloc))/float64(n), "B/trial")
	b.ReportMetric(built.Seconds()*1000, "build-ms")
	b.ReportMetric(first.Seconds()*1000, "first-ask-ms")
	b.ReportMetric(asks[len(asks)*99/100].Seconds()*1000, "p99-ask-ms")
}

// processor is the time that the process has had: unlike the clock it does not count waiting for
// other programs.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// askOnce asks for a trial, tells its result, and notes that all is in the log.
func askOnce(b *testing.B, s *tuning.Search) time.Duration {
	b.Helper()
	began := processor(b)
	given, err := s.Ask(tuning.Ask{Worker: "w"}, 2)
	took := processor(b) - began
	if err != nil || len(given.Trials) != 1 {
		b.Fatal(err, given.Reason)
	}
	t := given.Trials[0]
	loss := map[string]float64{"loss": t.Config[0]*t.Config[0] + t.Config[2]*t.Config[3]}
	if _, err := s.Tell(tuning.Tell{Number: t.Number, Worker: "w", Metrics: loss}, nil, 3); err != nil {
		b.Fatal(err)
	}
	if err := s.Advance(4); err != nil {
		b.Fatal(err)
	}
	if changes := s.Changes(); len(changes.Trials) != 1 {
		text, _ := json.Marshal(changes)
		b.Fatalf("%s", text)
	}
	s.Saved(5)
	return took
}
