package sweeps_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/reconciler"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/coordinator/sweeps"
	"github.com/clary-ml/clary/workload/tuning"
)

// bigStudy is a study of four numbers, of which auto makes one of CMA-ES.
const bigStudy = `{"space": {"parameters": [
	{"name": "a", "type": "float", "low": 0, "high": 1}, {"name": "b", "type": "float", "low": 1e-4, "high": 1, "scale": "log"},
	{"name": "c", "type": "float", "low": 0, "high": 1}, {"name": "d", "type": "float", "low": 0, "high": 1}]},
	"objectives": [{"name": "loss"}], "seed": 1, "budget": {"trials": 999999999}}`

// BenchmarkBigStudy fills a study on one replica, with its log synced to disk, with as many
// results as STUDY_RESULTS says (20,000), and measures what it then holds and costs: the
// process's memory, the files, an ask of one worker, and a start from what is on disk until an
// ask is answered. Run it with -benchtime 1x.
func BenchmarkBigStudy(b *testing.B) {
	results := int64(20_000)
	if more, err := strconv.ParseInt(os.Getenv("STUDY_RESULTS"), 10, 64); err == nil {
		results = more
	}
	for range b.N {
		dir := b.TempDir()
		d := startDesk(b, dir)
		d.submit()
		began := time.Now()
		d.fill(results)
		b.ReportMetric(float64(results)/time.Since(began).Seconds(), "results/s")
		asks, tells := d.alone(2000)
		b.ReportMetric(late(asks), "ask-p99-ms")
		b.ReportMetric(late(tells), "tell-p99-ms")
		b.ReportMetric(held(b), "memory-MiB")
		b.ReportMetric(size(b, filepath.Join(dir, "raft", "log")), "log-MiB")
		b.ReportMetric(size(b, filepath.Join(dir, "raft", "snapshots")), "snapshots-MiB")
		b.ReportMetric(size(b, filepath.Join(dir, "state.db")), "state-MiB")
		d.stop()
		began = time.Now()
		d = startDesk(b, dir)
		d.alone(1)
		b.ReportMetric(time.Since(began).Seconds(), "restart-s")
		d.stop()
	}
}

// realDesk is a desk on a replica of its own.
type realDesk struct {
	*testing.B
	replica *replica.Replica
	desk    *sweeps.Desk
	cancel  context.CancelFunc
	ended   chan error
}

func startDesk(b *testing.B, dir string) *realDesk {
	b.Helper()
	quiet := slog.New(slog.DiscardHandler)
	_, transport := raft.NewInmemTransport("a")
	r, err := replica.Open(replica.Config{ID: "a", Dir: dir, Transport: transport, Bootstrap: true, Logger: quiet, Fatal: func(err error) { b.Error(err) }})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &realDesk{B: b, replica: r, desk: sweeps.New(r, kinds, quiet), cancel: cancel, ended: make(chan error, 2)}
	go func() { d.ended <- r.Run(ctx) }()
	go func() { d.ended <- r.RunAsLeader(ctx, d.desk.Run) }()
	return d
}

func (d *realDesk) stop() {
	d.Helper()
	d.cancel()
	for range cap(d.ended) {
		if err := <-d.ended; !errors.Is(err, context.Canceled) {
			d.Error(err)
		}
	}
}

func (d *realDesk) submit() {
	d.Helper()
	now := time.Now().UnixNano()
	job := cluster.Job{Name: "study", Kind: cluster.KindTuning, Owner: "ann", Queue: "default", Spec: []byte(bigStudy), State: cluster.JobQueued, Submitted: now}
	record, _ := reconciler.First(job, kinds[job.Kind], now)
	for {
		_, err := d.replica.Propose(d.Context(), command.Command(record))
		if err == nil {
			return
		}
		if !d.replica.Leads() {
			time.Sleep(10 * time.Millisecond) // it elects itself
			continue
		}
		d.Fatal(err)
	}
}

// do has an operation done as soon as the desk is there and the study has begun.
func (d *realDesk) do(operation func(*tuning.Search, int64) error) error {
	for {
		err := d.desk.Do(d.Context(), "study", operation)
		if err == nil || d.replica.Leads() && !strings.Contains(err.Error(), "does not lead") {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// once asks for a trial and tells its result; there may be none yet.
func (d *realDesk) once(worker string) (ask, tell time.Duration, err error) {
	var given tuning.Given
	began := time.Now()
	if err := d.do(func(s *tuning.Search, now int64) (err error) {
		given, err = s.Ask(tuning.Ask{Worker: worker}, now)
		return err
	}); err != nil || len(given.Trials) == 0 {
		return 0, 0, err
	}
	asked := time.Now()
	t := given.Trials[0]
	x := t.Config
	loss := (x[0]-0.3)*(x[0]-0.3) + (x[2]-0.5)*(x[2]-0.5) + (x[3]-x[1])*(x[3]-x[1])
	err = d.do(func(s *tuning.Search, now int64) error {
		_, err := s.Tell(tuning.Tell{Number: t.Number, Worker: worker, Metrics: map[string]float64{"loss": loss}}, nil, now)
		return err
	})
	return asked.Sub(began), time.Since(asked), err
}

// fill has many workers ask and tell.
func (d *realDesk) fill(results int64) {
	d.Helper()
	var told atomic.Int64
	var busy sync.WaitGroup
	for i := range 256 {
		busy.Go(func() {
			for told.Load() < results {
				switch ask, _, err := d.once("worker-" + strconv.Itoa(i)); {
				case err != nil:
					d.Error(err)
					return
				case ask > 0:
					told.Add(1)
				}
			}
		})
	}
	busy.Wait()
}

// alone has one worker ask and tell so often.
func (d *realDesk) alone(times int) (asks, tells []time.Duration) {
	d.Helper()
	for len(asks) < times {
		ask, tell, err := d.once("alone")
		if err != nil {
			d.Fatal(err)
		}
		if ask > 0 {
			asks, tells = append(asks, ask), append(tells, tell)
		}
	}
	return asks, tells
}

// late is the 99th percentile in milliseconds.
func late(took []time.Duration) float64 {
	slices.Sort(took)
	return took[len(took)*99/100].Seconds() * 1000
}

// held is this process's memory without the pages of files, in MiB.
func held(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[0] == "RssAnon:" {
			kib, _ := strconv.ParseFloat(fields[1], 64)
			return kib / 1024
		}
	}
	return 0
}

// size is what a file or folder takes of the disk, in MiB.
func size(b *testing.B, path string) float64 {
	b.Helper()
	total := int64(0)
	err := filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return float64(total) / (1 << 20)
}
