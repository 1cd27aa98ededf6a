package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/clary-ml/clary/agent/device"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/monitor/metric"
	"github.com/clary-ml/clary/storage/journal"
)

// A task's metrics are rows (package metric) in a journal of its own. Each stream has one
// source, whose cursor its rows carry: so that whoever goes on after a restart knows where.
const (
	metricsLog  = "metrics.log"
	streamSaid  = "said"  // what it appended to its metrics file; the cursor is an offset
	streamFound = "found" // what was found in its log; the cursor is a time
	streamUsage = "usage" // what it used
)

const (
	metricsBytes = 32 << 20 // kept on the node
	rowsBurst    = 2000     // rows that a task may say at once …
	rowsRate     = 20       // … and a second for long; of more, the newest values are kept
	usageFirst   = time.Second
	usageEvery   = 10 * time.Second
	logPause     = time.Second // before a log that could not be read is tried again
	findPatience = 5 * time.Second
)

// watcher keeps what a running task says and uses.
type watcher struct {
	t    *task
	rows rowReader // of the follower's goroutine alone

	mu       sync.Mutex
	log      *journal.Writer
	limit    *rate.Limiter
	held     map[string]metric.Row // what was said too fast, by stream
	cursors  map[string]int64
	progress cluster.Progress
	news     bool

	sides    sync.WaitGroup // of finding and measuring
	finding  chan struct{}  // closed when all that it wrote has been looked at
	stopSide context.CancelFunc
}

// watch begins, or goes on, to keep what a running task says and uses.
func (t *task) watch(ctx context.Context) *watcher {
	path := t.metricsPath()
	w := &watcher{
		t: t, log: journal.Open(path, journal.Options{Bytes: metricsBytes}), limit: rate.NewLimiter(rowsRate, rowsBurst),
		held: map[string]metric.Row{}, cursors: map[string]int64{}, finding: make(chan struct{}),
		rows: rowReader{base: t.folders.Base, path: t.folders.Metrics()},
	}
	if err := journal.Read(ctx, path, journal.Query{}, nil, w.replay); err != nil && ctx.Err() == nil {
		t.s.config.Log.Warn("a task's metrics before this start are not known", "task", t.id(), "error", err)
	}
	w.rows.next = w.cursors[streamSaid]
	ctx, w.stopSide = context.WithCancel(ctx)
	w.sides.Go(func() { defer close(w.finding); w.find(ctx) })
	w.sides.Go(func() { w.measure(ctx) })
	return w
}

// replay learns from the journal where its sources are, and how the task's progress was.
func (w *watcher) replay(batch []journal.Entry) error {
	for _, entry := range batch {
		row, ok := metric.ParseRow(entry.Text)
		if !ok {
			continue
		}
		w.cursors[entry.Stream] = max(w.cursors[entry.Stream], row.Cursor)
		if entry.Stream != streamUsage {
			w.advance(row)
		}
	}
	return nil
}

// advance brings the progress up to a row.
func (w *watcher) advance(row metric.Row) {
	row.Advance(&w.progress)
	if track := w.t.assignment().Program.Track; track != nil {
		row.Track(&w.progress, *track)
	}
	w.news = true
}

// look takes in what the task has newly said, and tells its progress.
func (w *watcher) look() {
	w.rows.read(func(row metric.Row) { w.add(streamSaid, time.Now().UnixNano(), row) })
	w.mu.Lock()
	w.release(time.Now().UnixNano())
	if at := w.t.checkpoint.Load(); at != w.progress.Checkpoint {
		w.progress.Checkpoint, w.news = at, true
	}
	progress, news := w.progress, w.news
	w.news = false
	w.mu.Unlock()
	if news {
		status := w.t.status()
		status.Progress = progress
		w.t.show(status)
	}
}

// add writes a row down, or holds it back if there have been too many.
func (w *watcher) add(stream string, at int64, row metric.Row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if stream == streamUsage {
		w.log.Append(at, stream, row.Text())
		return
	}
	w.advance(row)
	held := w.held[stream]
	held.Merge(row)
	w.held[stream] = held
	w.release(at)
}

// release writes what is held of rows, as far as there may be more.
func (w *watcher) release(at int64) {
	for _, stream := range []string{streamSaid, streamFound} {
		if row, held := w.held[stream]; held && w.limit.Allow() {
			w.log.Append(at, stream, row.Text())
			delete(w.held, stream)
		}
	}
}

// find looks for metrics in what the task writes, until it has ended.
func (w *watcher) find(ctx context.Context) {
	definitions := w.t.assignment().Program.Metrics
	if len(definitions) == 0 {
		return
	}
	matcher, err := metric.NewMatcher(definitions)
	if err != nil { // which its submission would have been refused for
		w.t.s.config.Log.Error("find a task's metrics", "task", w.t.id(), "error", err)
		return
	}
	find := finder{matcher: matcher, open: map[string][]byte{}}
	after := w.cursors[streamFound]
	add := func(at int64, row metric.Row) { w.add(streamFound, at, row) }
	for {
		err := w.t.s.config.Driver.Logs(ctx, w.t.id(), journal.Query{After: after, Follow: true}, func(batch []journal.Entry) error {
			for _, entry := range batch {
				after = entry.Time
				find.take(entry, add)
			}
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			find.end(after, add)
			return
		}
		w.t.s.config.Log.Warn("a task's metrics cannot be found now; trying again", "task", w.t.id(), "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(logPause):
		}
	}
}

// measure writes down what the task uses, every now and then.
func (w *watcher) measure(ctx context.Context) {
	meter, can := w.t.s.config.Driver.(runtime.Meter)
	if !can {
		return
	}
	timer := time.NewTimer(usageFirst)
	defer timer.Stop()
	last, before := time.Now(), runtime.Usage{}
	if usage, err := meter.Usage(w.t.id()); err == nil {
		before = usage
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(usageEvery)
		usage, err := meter.Usage(w.t.id())
		if err != nil {
			continue
		}
		now := time.Now()
		values := map[string]float64{
			"cores":        (usage.CPU - before.CPU).Seconds() / now.Sub(last).Seconds(),
			"memory_bytes": float64(usage.Memory),
		}
		w.gauge(values)
		w.add(streamUsage, now.UnixNano(), usageRow(values))
		last, before = now, usage
	}
}

// gauge adds what the task's devices measure of themselves.
func (w *watcher) gauge(values map[string]float64) {
	latest := w.t.s.config.Gauge
	if latest == nil {
		return
	}
	busy, devices := 0.0, 0.0
	resources := w.t.assignment().Task.Allocation.Resources
	uuids := slices.Clone(resources.Devices)
	for _, share := range resources.Shares {
		uuids = append(uuids, share.UUID) // of the whole device: what each has of it is not measured
	}
	for i, uuid := range slices.Compact(uuids) {
		measured := latest(uuid)
		for name, value := range measured {
			values[fmt.Sprintf("gpu%d_%s", i, name)] = value
		}
		if share, told := measured[device.Utilization]; told {
			busy, devices = busy+share, devices+1
		}
	}
	if devices > 0 && w.t.assignment().Program.Probe != nil {
		w.tell(cluster.GPUUse, 100*busy/devices)
	}
}

// tell adds to the task's progress what is measured of it: whoever scales servers looks there.
func (w *watcher) tell(name string, value float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance(metric.Row{Values: map[string]float64{name: value}})
}

func usageRow(values map[string]float64) metric.Row {
	row := metric.Row{Values: map[string]float64{}}
	for name, value := range values {
		row.Values[cluster.UsagePrefix+name] = value
	}
	return row
}

// end takes in the last of what an ended task has said and used.
func (w *watcher) end(exit runtime.Exit) {
	select {
	case <-w.finding:
	case <-time.After(findPatience):
	}
	w.stopSide()
	w.sides.Wait()
	add := func(row metric.Row) { w.add(streamSaid, time.Now().UnixNano(), row) }
	w.rows.read(add)
	w.rows.end(add)
	if exit.Usage != (runtime.Usage{}) && exit.Ended.Sub(exit.Started) >= usageFirst {
		w.add(streamUsage, time.Now().UnixNano(), usageRow(map[string]float64{
			"cpu_seconds": exit.Usage.CPU.Seconds(), "peak_memory_bytes": float64(exit.Usage.PeakMemory),
		}))
	}
	w.mu.Lock()
	w.limit.SetLimit(rate.Inf) // what is held is the last of its stream
	w.mu.Unlock()
	w.look()
	w.close()
}

// close lets go of what the next agent goes on with.
func (w *watcher) close() {
	w.stopSide()
	w.sides.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log.Close()
}

func (t *task) metricsPath() string { return filepath.Join(t.folder, metricsLog) }

// readMetrics gives what the query wants of the task's metrics, and with Follow goes on
// until done is closed. NotFound says that there are none here.
func (t *task) readMetrics(ctx context.Context, query journal.Query, done <-chan struct{}, sink journal.Sink) error {
	err := journal.Read(ctx, t.metricsPath(), query, done, sink)
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.NotFound, "task %s has no metrics on this node", cluster.Clip(t.id()))
	}
	return err
}

// Metrics gives what the query wants of the rows (package metric) of a task. NotFound says
// that they are not on this node, or no longer: they are in the object store then.
func (s *Supervisor) Metrics(ctx context.Context, id string, query journal.Query, sink journal.Sink) error {
	t, err := s.recorded(id)
	if err != nil {
		return err
	}
	query.Follow = false // rows are asked for again
	return t.readMetrics(ctx, query, nil, sink)
}
