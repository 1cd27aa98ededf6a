package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
)

// What the CUDA library and NVIDIA's runtime show a container.
const (
	visibleCUDA   = "CUDA_VISIBLE_DEVICES"
	visibleNVIDIA = "NVIDIA_VISIBLE_DEVICES"
)

// sharedMemory bounds /dev/shm, over which torch's loaders hand on batches: an engine's own
// 64 MiB is not enough for them. It counts towards the task's memory.
const sharedMemory = 1 << 30

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
	h.note = note{Container: h.name, Created: time.Now(), MaxRuntime: spec.MaxRuntime, Grace: spec.Grace}
	if err := writeNote(dir, h.note); err != nil {
		return time.Time{}, fault.New(fault.Internal, "start task %s: %w", spec.ID, errors.Join(err, d.discard(ctx, h.name)))
	}
	return d.begin(ctx, h, spec)
}

// begin starts the container that is there.
func (d *Driver) begin(ctx context.Context, h *handle, spec runtime.Spec) (time.Time, error) {
	_, err := d.engine.ContainerStart(ctx, h.name, moby.ContainerStartOptions{})
	state, unknown := d.state(ctx, h.name)
	if err != nil && (unknown != nil || state.never || !state.running) {
		// What did not start leaves nothing, so that it may be tried again.
		ctx := context.WithoutCancel(ctx)
		if left := errors.Join(d.discard(ctx, h.name), os.Remove(filepath.Join(h.dir, noteFile))); left != nil {
			d.config.Log.Warn("remove a container that did not start", "task", spec.ID, "error", left)
		}
		if moby.IsErrConnectionFailed(err) {
			return time.Time{}, fault.New(fault.Unready, "start task %s: %w", spec.ID, err)
		}
		return time.Time{}, fault.New(fault.Invalid, "start a container of %s: %w", spec.Image, err)
	}
	h.started = h.note.Created
	if unknown == nil && !state.exit.Started.IsZero() {
		h.started = state.exit.Started
	}
	d.follow(h)
	return h.started, nil
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
	config, host := d.arrange(ctx, spec)
	config.Image = image
	options := moby.ContainerCreateOptions{Config: config, HostConfig: host, Name: h.name}
	_, err := d.engine.ContainerCreate(ctx, options)
	if errdefs.IsConflict(err) {
		// Without a note it never ran: an earlier agent died before it could.
		if state, known := d.state(ctx, h.name); known == nil && !state.never {
			return fault.New(fault.Conflict, "task %s was started before: a new run needs a new attempt", spec.ID)
		}
		if err = d.discard(ctx, h.name); err == nil {
			_, err = d.engine.ContainerCreate(ctx, options)
		}
	}
	switch {
	case err == nil:
		return nil
	case moby.IsErrConnectionFailed(err):
		return fault.New(fault.Unready, "make a container of %s: %w", spec.Image, err)
	}
	return fault.New(fault.Invalid, "make a container of %s: %w", spec.Image, err)
}

// arrange turns a spec into an engine's terms.
func (d *Driver) arrange(ctx context.Context, spec runtime.Spec) (*container.Config, *container.HostConfig) {
	own := spec.Isolation
	if own == nil {
		own = &runtime.Isolation{}
	}
	config := &container.Config{
		Env: d.environment(spec), Cmd: spec.Argv, Entrypoint: spec.Entrypoint, WorkingDir: spec.Dir, Hostname: own.Hostname,
		Labels: map[string]string{labelTask: spec.ID, labelAgent: d.agent}, StopSignal: "SIGTERM",
	}
	host := &container.HostConfig{
		CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"}, ShmSize: sharedMemory,
		NetworkMode: networks[own.Network], LogConfig: logs(spec.LogBytes), Resources: limits(spec.Limits),
	}
	if spec.User != nil {
		config.User = fmt.Sprintf("%d:%d", spec.User.UID, spec.User.GID)
	}
	for name, address := range own.Hosts {
		host.ExtraHosts = append(host.ExtraHosts, name+":"+address)
	}
	slices.Sort(host.ExtraHosts)
	for _, m := range own.Mounts {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
	}
	if info, err := d.engine.Info(ctx, moby.InfoOptions{}); err == nil {
		// An init hands signals on and reaps: most programs do neither as process 1.
		if with := info.Info.InitBinary != ""; with {
			host.Init = &with
		}
		if len(spec.Devices) > 0 && !d.config.Simulated {
			host.DeviceRequests = devices(spec.Devices, len(info.Info.CDISpecDirs) > 0)
		}
	}
	return config, host
}

var networks = map[runtime.Network]container.NetworkMode{
	runtime.NetworkHost: "host", runtime.NetworkNone: "none", runtime.NetworkBridge: "bridge",
}

// logs bounds what an engine keeps. json-file is what both engines know, and neither loses
// it when it is restarted.
func logs(bytes int64) container.LogConfig {
	if bytes == 0 {
		bytes = runtime.DefaultLogBytes
	}
	return container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": strconv.FormatInt(max(bytes/2, 4096), 10), "max-file": "2"}}
}

func limits(l runtime.Limits) container.Resources {
	r := container.Resources{Memory: l.Memory, MemorySwap: l.Memory}
	if l.MilliCPU > 0 {
		r.CPUShares = max(l.MilliCPU*1024/1000, 2)
		if l.HardCPU {
			r.NanoCPUs = l.MilliCPU * 1_000_000
		}
	}
	if l.Pids > 0 {
		r.PidsLimit = &l.Pids
	}
	return r
}

// devices asks for GPUs by UUID: through CDI where the engine has it, through NVIDIA's own
// hook otherwise.
func devices(uuids []string, cdi bool) []container.DeviceRequest {
	if !cdi {
		return []container.DeviceRequest{{Driver: "nvidia", DeviceIDs: uuids, Capabilities: [][]string{{"gpu"}}}}
	}
	names := make([]string, len(uuids))
	for i, uuid := range uuids {
		names[i] = "nvidia.com/gpu=" + uuid
	}
	return []container.DeviceRequest{{Driver: "cdi", DeviceIDs: names}}
}

// environment is the task's own, with what makes its devices, and no others, visible.
func (d *Driver) environment(spec runtime.Spec) []string {
	env := slices.DeleteFunc(slices.Clone(spec.Env), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return name == visibleCUDA || name == visibleNVIDIA
	})
	none := "void" // nothing at all, unlike "none"
	if len(spec.Devices) > 0 {
		none = strings.Join(spec.Devices, ",")
	}
	return append(env, visibleCUDA+"="+strings.Join(spec.Devices, ","), visibleNVIDIA+"="+none)
}
