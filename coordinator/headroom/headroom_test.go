package headroom_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/coordinator/headroom"
	"github.com/clary-ml/clary/internal/fault"
)

const mib = 1 << 20

// disk is one of 256 MiB with as much free as the test says.
type disk struct {
	*testing.T
	dir  string
	free atomic.Int64
}

func (d *disk) open() *headroom.Watch {
	d.Helper()
	w, err := headroom.Open(headroom.Config{
		Dir: d.dir, State: filepath.Join(d.dir, "state.db"), Asked: func() int64 { return 1 << 30 }, Log: slog.New(slog.DiscardHandler),
		Look: func(string) (int64, int64, error) { return d.free.Load(), 256 * mib, nil },
	})
	if err != nil {
		d.Fatal(err)
	}
	return w
}

func (d *disk) ballast() bool {
	_, err := os.Stat(filepath.Join(d.dir, headroom.BallastFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.Fatal(err)
	}
	return err == nil
}

var errFull = fmt.Errorf("write the file: %w", syscall.ENOSPC)

// A disk that fills is low, then gives its ballast up, then takes nothing; and all is as it was when there is room.
func TestADiskThatFillsAndIsEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{T: t, dir: t.TempDir()}
		d.free.Store(200 * mib)
		w := d.open()
		ended := make(chan error, 1)
		go func() { ended <- w.Run(t.Context()) }()
		for _, step := range []struct {
			free    int64 // MiB
			level   headroom.Level
			ballast bool
		}{
			{200, headroom.Ample, true},
			{31, headroom.Low, true},
			{39, headroom.Low, true},
			{45, headroom.Ample, true},
			{10, headroom.Low, true},
			{7, headroom.Out, false}, // the ballast gave nothing here, since this disk is what the test says
			{12, headroom.Out, false},
			{17, headroom.Low, false},
			{45, headroom.Ample, false},
			{60, headroom.Ample, true},
		} {
			d.free.Store(step.free * mib)
			time.Sleep(1100 * time.Millisecond)
			now := w.Disk()
			if now.Level != step.level || d.ballast() != step.ballast {
				t.Errorf("%d MiB free: level %d, ballast %t, want %+v", step.free, now.Level, d.ballast(), step)
			}
			if low := now.Low != ""; low != (step.level != headroom.Ample) || low && (!strings.Contains(now.Low, d.dir) || !strings.Contains(now.Low, fmt.Sprintf("%d MiB free of 256 MiB", step.free))) {
				t.Errorf("%d MiB free: it is said: %q", step.free, now.Low)
			}
			if err := w.Full(); (err != nil) != (step.level == headroom.Out) || err != nil && !fault.Is(err, fault.Unready) {
				t.Errorf("%d MiB free: full: %v", step.free, err)
			}
		}
	})
}

func TestAWriteThatFindsNoRoomGetsTheBallastAndThenWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{T: t, dir: t.TempDir()}
		d.free.Store(200 * mib)
		w := d.open()
		if !d.ballast() {
			t.Fatal("there is no ballast")
		}
		stop := make(chan struct{})
		if w.Starved(stop, errors.New("something else")) || !d.ballast() {
			t.Error("what is no full disk is tried again")
		}
		began := time.Now()
		if !w.Starved(stop, errFull) || d.ballast() || time.Since(began) != 0 || w.Waits() != nil {
			t.Error("the ballast is not given up at once")
		}
		if !w.Starved(stop, errFull) || time.Since(began) == 0 {
			t.Error("a second write does not wait for room")
		}
		if err := w.Waits(); !fault.Is(err, fault.Unready) || w.Full() == nil {
			t.Errorf("who waits says %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := w.Waits(); err != nil {
			t.Errorf("long after: %v", err)
		}
		close(stop)
		if w.Starved(stop, errFull) {
			t.Error("it is tried again although all ends")
		}
	})
}

func TestABallastThatWasLeftIsUsedAgain(t *testing.T) {
	d := &disk{T: t, dir: t.TempDir()}
	d.free.Store(200 * mib)
	d.open()
	d.free.Store(20 * mib) // too little to make one
	w := d.open()
	if !d.ballast() || !w.Starved(nil, errFull) || d.ballast() {
		t.Error("it is not")
	}
}

func TestASnapshotThatDoesNotFitIsNotBegun(t *testing.T) {
	d := &disk{T: t, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(d.dir, "state.db"), make([]byte, 20*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	for free, fits := range map[int64]bool{200: true, 28: true, 27: false} {
		d.free.Store(free * mib)
		if err := d.open().Fits(); (err == nil) != fits {
			t.Errorf("%d MiB free: %v", free, err)
		}
	}
}
