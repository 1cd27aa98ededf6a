package container

import (
	"context"
	"syscall"
	"time"

	moby "github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/shim"
)

const (
	farewell = 4 * time.Second // of an engine that is told to end
	blink    = 2 * gaugeEvery  // for which an agent may be too busy to look
)

const engineEnded = "the container engine ended, and its containers with it"

// foundDead is the exit code that an engine gives a container which ended while it was away.
const foundDead = 255

// asIfTaken reports whether a container ended as those do that an engine, or the machine,
// takes with it: told to end, killed, or found dead.
func asIfTaken(exit runtime.Exit) bool {
	return exit.Signal == int(syscall.SIGTERM) || exit.Signal == int(syscall.SIGKILL) && !exit.OutOfMemory || exit.Code == foundDead
}

// witness is what there is to tell whether an engine knows how a container ended.
type witness struct {
	away    bool      // the engine was, just before
	alone   bool      // it ended while no agent was there
	boot    time.Time // of the machine
	older   bool      // the container is, than the machine's start
	learned time.Time // when the engine told that it had ended
}

// newWitness is one of a container that was started with a note.
func newWitness(h *handle) witness {
	w := witness{alone: h.before, boot: bootTime()}
	if w.older = h.note.Boot != shim.Boot(); h.note.Boot == "" { // written by an agent that did not note it
		w.older = h.started.Before(w.boot)
	}
	return w
}

// taken says why nobody knows how it ended, or "".
func (w witness) taken(exit runtime.Exit) string {
	switch {
	case w.older && !exit.Ended.Before(w.boot): // with whatever code: nothing runs on
		return "the machine went down, and its containers with it"
	case !asIfTaken(exit):
		return ""
	case w.away:
		return engineEnded
	case w.alone && exit.Code == foundDead:
		return "it ended while no agent was there: its container engine says 255 also of what it found dead"
	case w.alone:
		return "it was told to end while no agent was there: by the container engine, the machine or a person"
	}
	return ""
}

// bootTime is when the machine started, as far as its clock is right.
func bootTime() time.Time {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(up.Nano()))
}

// attention knows when an agent that looks at every gaugeEvery could not, since it was frozen: an engine that
// went and came back meanwhile it has not seen.
type attention struct{ last, woke time.Time }

func (a *attention) look() {
	now := time.Now()
	if !a.last.IsZero() && now.Sub(a.last) > blink {
		a.woke = now
	}
	a.last = now
}

// missed reports whether that was just before an instant.
func (a *attention) missed(at time.Time) bool {
	a.look()
	return !a.woke.IsZero() && a.woke.After(at.Add(-farewell))
}

// verdict is how a container ended, of which the engine says an exit: as it says, or unknown.
func (d *Driver) verdict(ctx context.Context, h *handle, exit runtime.Exit, saw witness, watched *attention) (runtime.Exit, error) {
	exit.Cause = h.note.Cause
	if exit.Cause != runtime.CauseNone {
		exit.OutOfMemory = false
		return exit, nil
	}
	if exit.Unknown {
		return exit, nil
	}
	saw.alone = saw.alone || watched.missed(saw.learned)
	if asIfTaken(exit) && !saw.away && !saw.alone {
		saw.away = d.goesAway(ctx, watched)
		saw.alone = watched.missed(saw.learned)
	}
	why := saw.taken(exit)
	switch {
	case ctx.Err() != nil: // before it was known: the next agent asks
		return runtime.Exit{}, errClosed
	case why != "":
		return unknown(h, why), nil
	}
	return exit, nil
}

// goesAway reports whether the engine is about to end: one that is told to ends its
// containers first, and still tells of it.
func (d *Driver) goesAway(ctx context.Context, watched *attention) bool {
	for deadline := time.Now().Add(farewell); ; pause(ctx, askOften) {
		watched.look()
		if _, err := d.engine.Ping(ctx, moby.PingOptions{}); err != nil && ctx.Err() == nil {
			return true
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return false
		}
	}
}

func unknown(h *handle, why string) runtime.Exit {
	return runtime.Exit{Code: -1, Unknown: true, Error: why, Started: h.started, Ended: time.Now(), Usage: h.gauge.used()}
}
