package decisions

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Limits bound a record on disk.
type Limits struct {
	Segment int64         // bytes behind a segment's beginning after which the next is to begin
	Total   int64         // bytes of all segments; the oldest go first, and the newest two stay
	Age     time.Duration // of a segment that nothing was added to
}

// DefaultLimits keep the last hundred thousands of decisions, for a week at the most.
var DefaultLimits = Limits{Segment: 32 << 20, Total: 256 << 20, Age: 7 * 24 * time.Hour}

// pending is how many batches wait to be written before what comes is not recorded.
const pending = 256

// expireEvery is how often segments that are too old go, wherever they were made: a coordinator that led once begins none, and keeps them.
const expireEvery = time.Hour

// failedPause is how long nothing is recorded after writing failed: a beginning costs whoever decides, too.
const failedPause = 10 * time.Minute

// Recorder writes a record into segments in a folder. Whoever decides hands over what happened and never waits: encoding
// and writing are the recorder's own. What it cannot keep up with it leaves out, up to the next beginning.
type Recorder struct {
	dir    string
	limits Limits
	log    *slog.Logger
	queue  chan []Told
	behind atomic.Bool  // something was left out: nothing is taken until the next beginning
	full   atomic.Bool  // the segment has its size
	again  atomic.Int64 // after a failure: no new beginning before this instant

	file  *os.File // Run alone has what follows
	size  int64
	known int64 // how much of it is the beginning: what was known before the first decision
	made  described
	buf   []byte
}

// NewRecorder makes a recorder for a folder. Until Run runs nothing is written.
func NewRecorder(dir string, limits Limits, log *slog.Logger) *Recorder {
	return &Recorder{dir: dir, limits: limits, log: log, queue: make(chan []Told, pending), made: described{}}
}

// Tell hands over what happened, in order. The batch is the recorder's from then on. A batch that begins anew ends a gap.
func (r *Recorder) Tell(batch []Told) {
	if len(batch) == 0 {
		return
	}
	begins := batch[0].Begin != nil
	if r.behind.Load() && !begins {
		return
	}
	if begins { // before it is written: that may fail, which is not forgotten then
		r.behind.Store(false)
	}
	select {
	case r.queue <- batch:
	default:
		r.behind.Store(true)
	}
}

// Wants reports whether it is time to begin anew, where that costs least: the segment has its size, or something was
// left out.
func (r *Recorder) Wants() bool {
	return (r.full.Load() || r.behind.Load()) && time.Now().UnixNano() >= r.again.Load()
}

// Run writes until ctx ends: nothing that fails ends it before.
func (r *Recorder) Run(ctx context.Context) error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil { // who reads it finds a folder; each beginning tries anew
		r.log.Error("decisions cannot be recorded", "error", err)
	}
	defer r.close()
	clock := time.NewTicker(expireEvery)
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
			if err := r.expire(time.Now().UnixNano()); err != nil && !os.IsNotExist(err) {
				r.log.Warn("decisions that are too old cannot be deleted", "error", err)
			}
		case <-ctx.Done():
			for len(r.queue) > 0 {
				r.keep(<-r.queue)
			}
			return ctx.Err()
		case batch := <-r.queue:
			r.keep(batch)
		}
	}
}

// keep writes a batch. A record is not worth a coordinator: where that fails the next segment is waited for.
func (r *Recorder) keep(batch []Told) {
	if err := r.write(batch); err != nil {
		r.log.Error("decisions are not recorded until the next segment", "error", err)
		r.again.Store(time.Now().Add(failedPause).UnixNano())
		r.behind.Store(true)
		r.close()
	}
}

func (r *Recorder) close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}

func (r *Recorder) write(batch []Told) error {
	r.buf = r.buf[:0]
	for _, told := range batch {
		if told.Begin != nil {
			if err := r.begin(told.Begin.At); err != nil {
				return err
			}
		}
		if r.file == nil {
			continue // it began before it was heard
		}
		if told.Decided != nil && r.known == 0 {
			r.known = r.size + int64(len(r.buf))
		}
		var err error
		if r.buf, err = r.made.frame(r.buf, told); err != nil {
			return err
		}
	}
	if r.file == nil {
		return nil
	}
	n, err := r.file.Write(r.buf)
	r.size += int64(n)
	r.full.Store(r.known > 0 && r.size-r.known >= r.limits.Segment)
	return err
}

// begin starts a segment and deletes what is too old or too much.
func (r *Recorder) begin(at int64) error {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
	r.buf = r.buf[:0]
	clear(r.made)
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	if err := r.prune(at); err != nil {
		return err
	}
	path := filepath.Join(r.dir, segmentPrefix+strconv.FormatInt(at, 10)+segmentSuffix)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := file.Write(heading())
	if err != nil {
		_ = file.Close()
		return err
	}
	r.file, r.size, r.known = file, int64(n), 0
	r.full.Store(false)
	return nil
}

const (
	segmentPrefix = "decisions-"
	segmentSuffix = ".log"
)

// Segments lists the files of a record, the oldest first.
func Segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	at := func(name string) int64 {
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(name, segmentPrefix), segmentSuffix), 10, 64)
		return n
	}
	var names []string
	for _, entry := range entries {
		if name := entry.Name(); strings.HasPrefix(name, segmentPrefix) && strings.HasSuffix(name, segmentSuffix) && at(name) > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return int(min(1, max(-1, at(a)-at(b)))) })
	for i, name := range names {
		names[i] = filepath.Join(dir, name)
	}
	return names, nil
}

// expire deletes what is too old, but for what is being written.
func (r *Recorder) expire(now int64) error {
	paths, err := Segments(r.dir)
	if err != nil {
		return err
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if now-info.ModTime().UnixNano() <= int64(r.limits.Age) || r.file != nil && path == r.file.Name() {
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// prune makes place for one more segment.
func (r *Recorder) prune(now int64) error {
	paths, err := Segments(r.dir)
	if err != nil {
		return err
	}
	total := r.limits.Segment + r.known // what is known now is about as much
	for i, path := range slices.Backward(paths) {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		total += info.Size()
		old := now-info.ModTime().UnixNano() > int64(r.limits.Age)
		if newest := i == len(paths)-1; old || total > r.limits.Total && !newest {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}
