// Package headroom watches the disk that a coordinator's folder is on, so that a full one changes what the coordinator does
// instead of ending it: low, it lets another lead, and if there is none the cluster takes no changes; out of room, it puts nothing
// more into the log. What has begun is finished from a ballast: a file that is deleted when a write fails. A writer for whom
// that was not enough waits.
//
// What is decided is pure (judge.go); who leads instead is package quorum's.
package headroom

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	lookEvery  = time.Second
	retryEvery = 250 * time.Millisecond // a write that found no room
)

// BallastFile is the ballast's name in the folder.
const BallastFile = "ballast"

// Config is what is watched.
type Config struct {
	Dir   string       // the coordinator's folder
	State string       // the file that a snapshot copies
	Asked func() int64 // how many bytes are to be free, by the settings
	Look  func(dir string) (free, total int64, err error)
	Log   *slog.Logger
}

// Watch knows how the disk is.
type Watch struct {
	config Config

	file    sync.Mutex // held while the ballast is made or deleted
	ballast bool       // it is there

	mu      sync.Mutex
	level   Level
	room    Room
	bounds  Bounds
	starved time.Time // when a write last waited for room
}

// Open looks for the first time. A ballast that was left is used again.
func Open(c Config) (*Watch, error) {
	w := &Watch{config: c}
	_, err := os.Stat(w.path())
	w.ballast = err == nil
	return w, w.look()
}

func (w *Watch) path() string { return filepath.Join(w.config.Dir, BallastFile) }

// Run looks every second, until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	clock := time.NewTicker(lookEvery)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.C:
		}
		if err := w.look(); err != nil {
			w.config.Log.Debug("how full the disk is cannot be told", "error", err)
		}
	}
}

// look sees how the disk is, and gives the ballast up or makes it.
func (w *Watch) look() error {
	room, bounds, err := w.measure()
	if err != nil {
		return err
	}
	if room.Free < bounds.Ballast/2 && w.drop() {
		if room, bounds, err = w.measure(); err != nil {
			return err
		}
	}
	w.mu.Lock()
	was := w.level
	w.level, w.room, w.bounds = judge(was, room, bounds, w.hasBallast()), room, bounds
	now := w.level
	w.mu.Unlock()
	if now != was {
		w.tell(now)
	}
	if now == Ample && room.Free >= bounds.plenty()+bounds.Ballast {
		w.load(bounds.Ballast)
	}
	return nil
}

func (w *Watch) measure() (Room, Bounds, error) {
	free, total, err := w.config.Look(w.config.Dir)
	if err != nil {
		return Room{}, Bounds{}, err
	}
	room := Room{free, total}
	return room, BoundsOf(room, w.config.Asked(), w.stateSize()), nil
}

// stateSize is what a snapshot takes, about.
func (w *Watch) stateSize() int64 {
	info, err := os.Stat(w.config.State)
	if err != nil {
		return 0
	}
	return info.Size()
}

func (w *Watch) tell(now Level) {
	switch now {
	case Ample:
		w.config.Log.Info("the disk has room again", "free", cluster.FormatBytes(w.Disk().Free))
	case Low:
		w.config.Log.Warn("the disk is low: another coordinator leads if one has room, else the cluster takes nothing new", "problem", w.Disk().Low)
	case Out:
		w.config.Log.Error("the disk is full: this coordinator puts nothing more into the log", "problem", w.Disk().Low)
	}
}

func (w *Watch) hasBallast() bool {
	w.file.Lock()
	defer w.file.Unlock()
	return w.ballast
}

// drop deletes the ballast, and reports whether there was one.
func (w *Watch) drop() bool {
	w.file.Lock()
	defer w.file.Unlock()
	if !w.ballast {
		return false
	}
	w.ballast = false
	if err := os.Remove(w.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.config.Log.Error("the ballast cannot be deleted", "error", err)
		return false
	}
	w.config.Log.Warn("the disk is full: the ballast is given up, to finish what has begun", "file", w.path())
	return true
}

// load makes the ballast. A disk that cannot set room apart does without.
func (w *Watch) load(size int64) {
	w.file.Lock()
	defer w.file.Unlock()
	if w.ballast || size == 0 {
		return
	}
	file, err := os.OpenFile(w.path(), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err == nil {
		err = errors.Join(unix.Fallocate(int(file.Fd()), 0, 0, size), file.Close())
	}
	if err != nil {
		w.config.Log.Debug("there is no ballast", "error", errors.Join(err, os.Remove(w.path())))
		return
	}
	w.ballast = true
}

// Starved takes the error of a write. It reports whether to write again: if the disk was full, when the ballast was given up or some
// time has passed; never once stop is closed.
func (w *Watch) Starved(stop <-chan struct{}, err error) bool {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return false
	}
	if w.drop() {
		return true
	}
	w.mu.Lock()
	if w.starved.IsZero() || time.Since(w.starved) > starving {
		w.config.Log.Error("the disk is full, and this coordinator waits for room", "error", err)
	}
	w.starved = time.Now()
	w.mu.Unlock()
	select {
	case <-stop:
		return false
	case <-time.After(retryEvery):
		return true
	}
}

// starving is for how long a coordinator counts as waiting for room after a write did.
const starving = 4 * retryEvery

// Waits says that a write waits for room: what this coordinator shows is older and older. nil: none does.
func (w *Watch) Waits() error {
	w.mu.Lock()
	waits := !w.starved.IsZero() && time.Since(w.starved) <= starving
	w.mu.Unlock()
	if !waits {
		return nil
	}
	return fault.New(fault.Unready, "this coordinator cannot follow the others, since its disk is full: %s", w.Disk().said())
}

// Full says that nothing may be put onto the disk any more; nil: something may.
func (w *Watch) Full() error {
	w.mu.Lock()
	out := w.level == Out
	w.mu.Unlock()
	if out {
		return fault.New(fault.Unready, "nothing was changed, since the disk of the coordinator that leads is full: %s", w.Disk().said())
	}
	return w.Waits()
}

// Fits says that the state's next snapshot does not fit; nil: it does.
func (w *Watch) Fits() error {
	free, _, err := w.config.Look(w.config.Dir)
	if err != nil {
		return err
	}
	w.mu.Lock()
	spare := w.bounds.Ballast / 2
	w.mu.Unlock()
	if size := w.stateSize(); free < size+spare {
		return fault.New(fault.Exhausted, "a snapshot of %s does not fit on the disk of %s, which has %s free", cluster.FormatBytes(size), w.config.Dir, cluster.FormatBytes(free))
	}
	return nil
}

// Disk is how the disk is, as others are told.
type Disk struct {
	Level Level
	Room
	Least int64
	Low   string // what is wrong and what to do; empty: nothing
	dir   string
}

// Disk is how the disk is now.
func (w *Watch) Disk() Disk {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := Disk{Level: w.level, Room: w.room, Least: w.bounds.Least, dir: w.config.Dir}
	if d.Level != Ample {
		d.Low = d.said()
	}
	return d
}

func (d Disk) said() string {
	return fmt.Sprintf("the disk of %s has %s free of %s, and %s is wanted: free some, or move the folder to a larger disk",
		d.dir, cluster.FormatBytes(d.Free), cluster.FormatBytes(d.Total), cluster.FormatBytes(d.Least))
}
