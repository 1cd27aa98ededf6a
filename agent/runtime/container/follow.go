package container

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

const (
	askAgain  = 500 * time.Millisecond // while the engine is away
	askOften  = 50 * time.Millisecond
	killAgain = 2 * time.Second // until a killed container is gone
	// What a container used last is what was read before its control group went.
	gaugeEvery = time.Second
)

// state is what the engine says of a container.
type state struct {
	running bool
	never   bool // it was made, and not started, as far as the engine knows
	vague   bool // it has ended, and the engine itself does not know how
	exit    runtime.Exit
	pid     int
	id      string // of the container, as the engine made it up
}

// ending is what Podman says of a container that it was told to end, until it has.
const ending container.ContainerState = "stopping"

// state asks the engine: NotFound if there is no such container, Unready if the engine
// does not answer.
func (d *Driver) state(ctx context.Context, name string) (state, error) {
	answer, err := d.engine.ContainerInspect(ctx, name, moby.ContainerInspectOptions{})
	switch {
	case errdefs.IsNotFound(err):
		return state{}, fault.New(fault.NotFound, "there is no container %s", name)
	case err != nil:
		return state{}, fault.New(fault.Unready, "ask for container %s: %w", name, err)
	case answer.Container.State == nil:
		return state{}, fault.New(fault.Unready, "the engine says nothing of container %s", name)
	}
	told := answer.Container.State
	s := state{pid: told.Pid, id: answer.Container.ID, running: told.Running || told.Paused || told.Restarting || told.Status == ending}
	s.exit.Started, _ = time.Parse(time.RFC3339Nano, told.StartedAt)
	s.exit.Ended, _ = time.Parse(time.RFC3339Nano, told.FinishedAt)
	s.never = !s.running && s.exit.Started.IsZero()
	s.exit.Code, s.exit.OutOfMemory = told.ExitCode, told.OOMKilled
	// Podman says -1 if a container's monitor was killed; and 0, at no time, if the machine went down.
	s.vague = !s.running && (s.exit.Code < 0 || s.exit.Ended.IsZero())
	// An engine tells a signal as a shell does.
	if signal := told.ExitCode - 128; signal > 0 && signal <= int(syscall.SIGSYS) {
		s.exit.Code, s.exit.Signal = -1, signal
	}
	return s, nil
}

// follow makes the task known and stays with its container until it has ended.
func (d *Driver) follow(h *handle) {
	h.stops, h.done = make(chan time.Duration, 1), make(chan struct{})
	d.mu.Lock()
	d.tasks[h.id] = h
	d.mu.Unlock()
	d.running.Go(func() {
		defer close(h.done)
		defer h.gauge.close()
		if h.exit, h.err = d.live(h); h.err == nil {
			d.remember(h)
		}
	})
}

// remember writes down how a task ended: an engine may tell it only once, and who asks later has fewer witnesses.
func (d *Driver) remember(h *handle) {
	h.note.Exit = &h.exit
	if err := writeNote(h.dir, h.note); err != nil {
		d.config.Log.Error("note how a container ended", "task", h.id, "error", err)
	}
}

// live hands on the wish to stop, ends what ran too long, and returns how it ended.
func (d *Driver) live(h *handle) (runtime.Exit, error) {
	ctx, cancel := context.WithCancel(d.ctx)
	type outcome struct {
		exit runtime.Exit
		saw  witness
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		exit, saw, err := d.await(ctx, h)
		ended <- outcome{exit, saw, err}
	}()
	defer cancel()
	var watched attention
	watched.look()
	var tooLong, kill <-chan time.Time
	if h.note.MaxRuntime > 0 && h.note.Cause == runtime.CauseNone {
		tooLong = time.After(time.Until(h.started.Add(h.note.MaxRuntime)))
	}
	end := func(cause runtime.Cause, grace time.Duration) {
		if h.note.Cause == runtime.CauseNone {
			h.note.Cause = cause
			if err := writeNote(h.dir, h.note); err != nil {
				d.config.Log.Error("note that a container is told to end", "task", h.id, "error", err)
			}
		}
		if grace > 0 {
			d.signal(ctx, h, "SIGTERM")
		}
		kill = time.After(grace)
	}
	gauge := time.NewTicker(gaugeEvery)
	defer gauge.Stop()
	for {
		select {
		case o := <-ended:
			if o.err != nil {
				return runtime.Exit{}, o.err
			}
			return d.verdict(ctx, h, o.exit, o.saw, &watched)
		case <-gauge.C:
			watched.look()
			_, _ = h.gauge.read()
		case grace := <-h.stops:
			end(runtime.CauseStopped, grace)
		case <-tooLong:
			tooLong = nil
			end(runtime.CauseMaxRuntime, h.note.Grace)
		case <-kill:
			d.signal(ctx, h, "SIGKILL")
			kill = time.After(killAgain)
		}
	}
}

// signal sends one; a container that has ended, or an engine that is away, is for the next
// look.
func (d *Driver) signal(ctx context.Context, h *handle, name string) {
	_, err := d.engine.ContainerKill(ctx, h.name, moby.ContainerKillOptions{Signal: name})
	if err != nil && ctx.Err() == nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
		d.config.Log.Warn("signal a container", "task", h.id, "signal", name, "error", err)
	}
}

// await returns when the container has ended, or with an error when the driver is closed.
// While the engine is away it asks again.
func (d *Driver) await(ctx context.Context, h *handle) (exit runtime.Exit, saw witness, err error) {
	saw = newWitness(h)
	for {
		s, err := d.state(ctx, h.name)
		switch {
		case ctx.Err() != nil:
			return runtime.Exit{}, saw, errClosed
		case fault.Is(err, fault.NotFound):
			return unknown(h, "its container is gone from the engine: nobody knows how it ended"), saw, nil
		case err != nil:
			saw.away = true
			pause(ctx, askAgain)
			continue
		case s.never:
			d.mayHaveRun(s.id) // then nothing of it may stay
			return unknown(h, "its agent or its container engine ended while it was started"), saw, nil
		case s.vague:
			d.mayHaveRun(s.id)
			return unknown(h, "its container engine does not know how it ended"), saw, nil
		case !s.running:
			if saw.away || saw.alone {
				d.mayHaveRun(s.id) // what an engine that was killed does not know of is there still
			}
			s.exit.Error = d.neverStarted(ctx, h, s.exit)
			h.gauge.tell(&s.exit)
			return s.exit, saw, nil
		}
		h.gauge.find(s.pid, s.id)
		saw.away, saw.alone = false, false
		answer := d.engine.ContainerWait(ctx, h.name, moby.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
		select {
		case <-answer.Result:
			saw.learned = time.Now()
		case err := <-answer.Error:
			saw.away = err != nil
			pause(ctx, askAgain)
		case <-ctx.Done():
		}
	}
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, long time.Duration) {
	select {
	case <-time.After(long):
	case <-ctx.Done():
	}
}

// neverStarted is what a container's init said of a program that it could not start. There
// is no other way to know.
func (d *Driver) neverStarted(ctx context.Context, h *handle, exit runtime.Exit) string {
	if exit.Code != 1 && exit.Code != 126 && exit.Code != 127 {
		return ""
	}
	line, open := "", false // an init that writes twice is read as two parts of a line
	_, err := d.readLog(ctx, h, journal.Query{Streams: []string{runtime.Stderr}}, func(batch []journal.Entry) error {
		for _, e := range batch {
			if !open || len(line) > journal.MaxText {
				line = ""
			}
			line, open = line+string(e.Text), e.Partial
		}
		return nil
	})
	line = strings.TrimSpace(line)
	if err != nil {
		return ""
	}
	if _, why, fatal := strings.Cut(line, "[FATAL tini"); fatal {
		_, why, _ = strings.Cut(why, "] ")
		return "start the program: " + why
	}
	if _, why, fatal := strings.Cut(line, "ERROR (catatonit:"); fatal {
		_, why, _ = strings.Cut(why, "failed to exec pid1: ")
		return "start the program " + d.program(ctx, h) + ": " + why
	}
	return ""
}

// program is what a container was made to run.
func (d *Driver) program(ctx context.Context, h *handle) string {
	answer, err := d.engine.ContainerInspect(ctx, h.name, moby.ContainerInspectOptions{})
	if err != nil || answer.Container.Config == nil {
		return ""
	}
	if words := append(slices.Clone(answer.Container.Config.Entrypoint), answer.Container.Config.Cmd...); len(words) > 0 {
		return words[0]
	}
	return ""
}

var errClosed = fault.New(fault.Unready, "the agent is ending: its tasks run on")
