package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
)

// Start brings the image if it must, and makes and starts the container.
func (d *Driver) Start(ctx context.Context, spec runtime.Spec) (time.Time, error) {
	folder, err := runtime.FolderName(spec.ID)
	if err != nil {
		return time.Time{}, err
	}
	if err := check(spec); err != nil {
		return time.Time{}, err
	}
	release, err := d.claim(spec.ID)
	if err != nil {
		return time.Time{}, err
	}
	defer release()
	leave, err := d.turns.enter(ctx, spec.ID)
	if err != nil {
		return time.Time{}, err
	}
	defer leave()
	dir := filepath.Join(d.config.Root, folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return time.Time{}, fault.New(fault.Internal, "start task %s: %w", spec.ID, err)
	}
	h := &handle{id: spec.ID, dir: dir, name: d.containerName(folder)}
	if _, err := os.Stat(filepath.Join(dir, noteFile)); err == nil {
		return time.Time{}, fault.New(fault.Conflict, "task %s was started before: a new run needs a new attempt", spec.ID)
	}
	if err := d.make(ctx, h, spec); err != nil {
		return time.Time{}, err
	}
	h.note = note{Container: h.name, Created: time.Now(), Boot: shim.Boot(), MaxRuntime: spec.MaxRuntime, Grace: spec.Grace}
	if err := writeNote(dir, h.note); err != nil {
		return time.Time{}, fault.New(fault.Internal, "start task %s: %w", spec.ID, errors.Join(err, d.discard(ctx, h.name)))
	}
	return d.begin(ctx, h, spec)
}

// begin starts the container that is there. What did not start leaves nothing, so that it may
// be tried again.
func (d *Driver) begin(ctx context.Context, h *handle, spec runtime.Spec) (time.Time, error) {
	err := d.start(ctx, h, spec)
	state, unknown := d.state(ctx, h.name)
	h.started = h.note.Created
	switch {
	case unknown == nil && !state.never: // it did start, whatever was answered
		h.started = state.exit.Started
		if state.running {
			h.gauge.find(state.pid, state.id)
		}
	case err != nil && !fault.Is(unknown, fault.Unready) && !d.mayHaveRun(state.id): // it did not
		// The note goes first: with it, and without its container, the next agent would take the task for one that ran.
		if left := errors.Join(os.Remove(filepath.Join(h.dir, noteFile)), d.discard(context.WithoutCancel(ctx), h.name)); left != nil {
			d.config.Log.Warn("remove a container that did not start", "task", spec.ID, "error", left)
		}
		return time.Time{}, fault.New(d.kindOf(ctx, err), "start a container of %s: %w", spec.Image, err)
	case err != nil:
		// Nobody knows whether it started before the engine went: whoever follows it finds out.
		d.config.Log.Warn("the container engine went away over a start", "task", spec.ID, "error", err)
	}
	d.follow(h)
	return h.started, nil
}

// start starts a container. An engine that was killed may think that one of the same name is
// connected still.
func (d *Driver) start(ctx context.Context, h *handle, spec runtime.Spec) error {
	_, err := d.engine.ContainerStart(ctx, h.name, moby.ContainerStartOptions{})
	if err == nil || !strings.Contains(err.Error(), "already exists in network") {
		return err
	}
	network := runtime.NetworkHost
	if spec.Isolation != nil {
		network = spec.Isolation.Network
	}
	_, left := d.engine.NetworkDisconnect(ctx, string(networks[network]), moby.NetworkDisconnectOptions{Container: h.name, Force: true})
	if left != nil {
		return errors.Join(err, left)
	}
	_, err = d.engine.ContainerStart(ctx, h.name, moby.ContainerStartOptions{})
	return err
}

// kindOf says whether what the engine refused may be tried again. One that is about to end
// refuses with errors of its own making.
func (d *Driver) kindOf(ctx context.Context, err error) fault.Kind {
	switch {
	case moby.IsErrConnectionFailed(err), errdefs.IsUnavailable(err):
		return fault.Unready
	case errdefs.IsInvalidArgument(err), errdefs.IsNotFound(err), errdefs.IsConflict(err), errdefs.IsPermissionDenied(err):
		return fault.Invalid
	case d.goesAway(ctx, new(attention)):
		return fault.Unready
	}
	return fault.Invalid
}

// check refuses what an engine cannot do as the seam asks.
func check(spec runtime.Spec) error {
	switch {
	case spec.Image == "":
		return fault.New(fault.Invalid, "task %s: no image: name the container image to run", spec.ID)
	case spec.Exclusive:
		return fault.New(fault.Invalid, "task %s: a container cannot be exclusive: nobody would end it if the node lost its coordinators and its agent", spec.ID)
	case len(spec.Secrets) > 0:
		return fault.New(fault.Invalid, "task %s: a container engine keeps variables on its disk, where all who may use it read them: give secrets as files", spec.ID)
	}
	return nil
}

// make makes the container, and brings its image before if it must.
func (d *Driver) make(ctx context.Context, h *handle, spec runtime.Spec) error {
	for again := true; ; again = false {
		image, release, err := d.image(ctx, spec.Image)
		if err != nil {
			return err
		}
		err = d.create(ctx, h, spec, image)
		release()
		// Between the look and its use an image may have been deleted to make room.
		if again && errdefs.IsNotFound(err) {
			continue
		}
		return err
	}
}

func (d *Driver) create(ctx context.Context, h *handle, spec runtime.Spec, image string) error {
	have, err := d.traits(ctx)
	if err != nil {
		return fault.New(fault.Unready, "make a container of %s: %w", spec.Image, err)
	}
	config, host := d.arrange(spec, have)
	config.Image = image
	options := moby.ContainerCreateOptions{Config: config, HostConfig: host, Name: h.name}
	err = d.ask(ctx, options, have)
	if errdefs.IsConflict(err) {
		// Without a note it never ran: an earlier agent died before it could.
		if state, known := d.state(ctx, h.name); known == nil && (!state.never || d.mayHaveRun(state.id)) {
			return fault.New(fault.Conflict, "task %s was started before: a new run needs a new attempt", spec.ID)
		}
		if err = d.discard(ctx, h.name); err == nil {
			err = d.ask(ctx, options, have)
		}
	}
	if err == nil {
		return nil
	}
	return fault.New(d.kindOf(ctx, err), "make a container of %s: %w", spec.Image, err)
}

// ask has the engine make a container. Podman says only then whether it has an init.
func (d *Driver) ask(ctx context.Context, options moby.ContainerCreateOptions, have traits) error {
	once := func() error {
		if have.podman && len(options.HostConfig.DeviceRequests) > 0 {
			return d.libpodCreate(ctx, options)
		}
		_, err := d.engine.ContainerCreate(ctx, options)
		return err
	}
	err := once()
	if have.podman && err != nil && strings.Contains(err.Error(), noInit) {
		d.config.Log.Warn("containers have no init, so most programs in them do not heed SIGTERM: install catatonit (Podman's init), or set init_path in containers.conf", "error", err)
		options.HostConfig.Init = nil
		err = once()
	}
	return err
}
