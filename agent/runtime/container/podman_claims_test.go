package container_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime"
	driver "github.com/clary-ml/clary/agent/runtime/container"
	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
)

// serviceless sees what is Podman's own: a container needs no service to live on, and
// devices go a way of their own.
func serviceless(t *testing.T, e *enginetest.Engine) {
	b := newBench(t, e)
	for i, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		id := fmt.Sprintf("job/main/worker-%d.1", i)
		if err := b.start(id, image, "sleep 2; exit 5"); err != nil {
			t.Fatal(err)
		}
		e.End(signal)
		e.Run()
		if exit := b.wait(id); exit.Code != 5 || exit.Unknown {
			t.Errorf("after %s it ended as %+v", signal, exit)
		}
	}
	madeUp(t, e, b)
	gpus(t, e)
}

// madeUp takes the machine down, as far as Podman can see: it says afterwards that what ran has ended with 0.
func madeUp(t *testing.T, e *enginetest.Engine, b *bench) {
	const id, nap = "job/main/down-0.1", "sleep 31559"
	if err := b.start(id, image, nap); err != nil {
		t.Fatal(err)
	}
	if err := b.d.Close(); err != nil {
		t.Error(err)
	}
	e.End(syscall.SIGKILL)
	killAll(func(line string) bool { return strings.Contains(line, "/conmon") && strings.Contains(line, e.Path("")) })
	wake(t, nap)
	if err := os.Remove(e.Path("tmp/alive")); err != nil {
		t.Fatal(err)
	}
	e.Run()
	b.again()
	if exit := b.wait(id); !exit.Unknown {
		t.Errorf("it ended as %+v", exit)
	}
	// What Podman has mounted for it is there still, and is not known to it any more.
	if err := b.d.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// gpus gives a container what a file of the Container Device Interface describes, as
// NVIDIA's tools write one.
func gpus(t *testing.T, e *enginetest.Engine) {
	uuid := fmt.Sprintf("GPU-clary-test-%d", os.Getpid())
	const folder = "/var/run/cdi"
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, uuid+".json")
	t.Cleanup(func() { _ = os.Remove(file) })
	text := `{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "` + uuid + `", "containerEdits": {"deviceNodes": [{"path": "/dev/clary-gpu", "hostPath": "/dev/zero"}], "env": ["CDI_SAID=here"]}}]}`
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, e, func(c *driver.Config) { c.Simulated = false })
	spec := whole(t)
	spec.ID, spec.Devices = "job/main/gpu-0.1", []string{uuid}
	if _, err := b.d.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(spec.ID); exit.Code != 0 {
		t.Errorf("it ended as %+v", exit)
	}
	if said := b.said(spec.ID); said != "0a.b here "+uuid+" confined\n" {
		t.Errorf("it said %q", said)
	}
	given := inspect(t, e, spec.ID)

	// But for the device it is as without one.
	b = newBench(t, e)
	spec.ID, spec.Devices, spec.Argv = "job/main/none-0.1", nil, []string{"true"}
	if _, err := b.d.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	b.wait(spec.ID)
	if plain := inspect(t, e, spec.ID); !reflect.DeepEqual(given, plain) {
		t.Errorf("with a device it is made as\n%+v\nand without as\n%+v", given, plain)
	}
	b = newBench(t, e, func(c *driver.Config) { c.Simulated = false })
	spec.ID, spec.Devices = "job/main/other-0.1", []string{"GPU-of-nobody"}
	if _, err := b.d.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "GPU-of-nobody") {
		t.Errorf("a device that is not there: %v", err)
	}
}

// whole is a task that asks for all there is.
func whole(t *testing.T) runtime.Spec {
	t.Helper()
	// Podman takes no folder with a comma in its name.
	shown, err := os.MkdirTemp("", "clary-shown")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(shown) })
	return runtime.Spec{
		Image: image, Argv: []string{"-c", `head -c 1 /dev/clary-gpu | od -An -tx1 | tr -d " 0\n"; unshare -U true 2>/dev/null || how=confined; echo "$A $CDI_SAID $NVIDIA_VISIBLE_DEVICES $how"`},
		Entrypoint: []string{"sh"}, Env: []string{"PATH=/bin", "A=0a.b"}, Dir: "/data", LogBytes: 1 << 20,
		Limits: runtime.Limits{MilliCPU: 1500, HardCPU: true, Memory: 64 << 20, Pids: 77}, User: &runtime.User{UID: uid, GID: uid},
		Isolation: &runtime.Isolation{
			Mounts: []runtime.Mount{{Source: shown, Target: "/data", ReadOnly: true}, {Source: shown, Target: "/more"}},
			Hosts:  map[string]string{"algo-1": "10.1.2.3", "algo-2": "10.1.2.4"}, Hostname: "algo-1", Network: runtime.NetworkNone, ReadOnly: true,
		},
	}
}

// made is how an engine says that it made a container, without what differs each time.
type made struct {
	User, WorkingDir, Hostname, StopSignal, Network, Log string
	Entrypoint, CapDrop, Security, Hosts                 []string
	Labels                                               map[string]string
	Memory, Swap, Shares, Nano, Shm, Pids                int64
	Init, ReadOnly                                       bool
	Mounts                                               []string
}

func inspect(t *testing.T, e *enginetest.Engine, task string) made {
	t.Helper()
	client := e.Client()
	defer client.Close()
	list, err := client.ContainerList(t.Context(), moby.ContainerListOptions{All: true, Filters: moby.Filters{}.Add("label", "clary.task="+task)})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%v, %v", list.Items, err)
	}
	answer, err := client.ContainerInspect(t.Context(), list.Items[0].ID, moby.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return madeAs(answer.Container)
}

func madeAs(c container.InspectResponse) made {
	m := made{
		User: c.Config.User, WorkingDir: c.Config.WorkingDir, Hostname: c.Config.Hostname, StopSignal: c.Config.StopSignal,
		Network: string(c.HostConfig.NetworkMode), Log: fmt.Sprint(c.HostConfig.LogConfig.Type),
		Entrypoint: c.Config.Entrypoint, CapDrop: c.HostConfig.CapDrop, Hosts: c.HostConfig.ExtraHosts,
		Memory: c.HostConfig.Memory, Swap: c.HostConfig.MemorySwap, Shares: c.HostConfig.CPUShares, Nano: c.HostConfig.NanoCPUs, Shm: c.HostConfig.ShmSize,
		Init: c.HostConfig.Init != nil && *c.HostConfig.Init, ReadOnly: c.HostConfig.ReadonlyRootfs,
	}
	for _, option := range c.HostConfig.SecurityOpt {
		if !strings.HasPrefix(option, "seccomp=") { // told of one way only: the task itself sees
			m.Security = append(m.Security, option)
		}
	}
	if c.HostConfig.PidsLimit != nil {
		m.Pids = *c.HostConfig.PidsLimit
	}
	for _, mount := range c.Mounts {
		m.Mounts = append(m.Mounts, fmt.Sprint(mount.Type, mount.Destination, mount.RW))
	}
	slices.Sort(m.Mounts) // Podman tells them in any order
	return m
}
