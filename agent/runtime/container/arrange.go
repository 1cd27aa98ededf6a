package container

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
)

// What the CUDA library and NVIDIA's runtime show a container.
const (
	visibleCUDA   = "CUDA_VISIBLE_DEVICES"
	visibleNVIDIA = "NVIDIA_VISIBLE_DEVICES"
)

// sharedMemory bounds /dev/shm, over which torch's loaders hand on batches: an engine's own
// 64 MiB is not enough for them. It counts towards the task's memory.
const sharedMemory = 1 << 30

// noInit is in what Podman says where it has no init for a container.
const noInit = "container-init binary not found"

// traits are what an engine is and has.
type traits struct {
	podman bool
	init   bool   // may be asked for; Podman's may turn out not to be there
	cdi    bool   // knows devices by the names of the Container Device Interface
	filter string // file of system calls to use instead of the engine's own, if any
}

func (d *Driver) traits(ctx context.Context) (traits, error) {
	name, err := d.Engine(ctx)
	if err != nil {
		return traits{}, err
	}
	if name == podmanEngine {
		return traits{podman: true, init: true, cdi: true, filter: d.podmanFilter(ctx)}, nil
	}
	info, err := d.engine.Info(ctx, moby.InfoOptions{})
	if err != nil {
		return traits{}, err
	}
	return traits{init: info.Info.InitBinary != "", cdi: len(info.Info.CDISpecDirs) > 0}, nil
}

// arrange turns a spec into an engine's terms.
func (d *Driver) arrange(spec runtime.Spec, have traits) (*container.Config, *container.HostConfig) {
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
		ReadonlyRootfs: own.ReadOnly, NetworkMode: networks[own.Network], LogConfig: logs(spec.LogBytes), Resources: limits(spec.Limits),
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
	if have.filter != "" {
		host.SecurityOpt = append(host.SecurityOpt, filterOption+have.filter)
	}
	if have.init { // it hands signals on and reaps: most programs do neither as process 1
		host.Init = &have.init
	}
	if len(spec.Devices) > 0 && !d.config.Simulated {
		host.DeviceRequests = devices(spec.Devices, have.cdi)
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
