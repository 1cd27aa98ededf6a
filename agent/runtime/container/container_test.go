package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/container"
	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
	"github.com/clary-ml/clary/agent/runtime/process"
	"github.com/clary-ml/clary/agent/runtime/route"
	"github.com/clary-ml/clary/agent/runtime/runtimetest"
)

const (
	uid   = enginetest.UID
	image = enginetest.Image
)

func TestDriver(t *testing.T) {
	for name := range enginetest.Engines {
		t.Run(name, func(t *testing.T) {
			e := enginetest.Open(t, name)
			runtimetest.Run(t, func(t *testing.T) runtimetest.Harness { return harness(t, e) })
		})
	}
}

const exclusive = "nobody would end it if the node lost its coordinators and its agent, so the driver refuses it"

// listener answers with busybox, which has no perl.
const listener = `echo "port 31234"; echo; while :; do echo hello | nc -l -p 31234; done`

func harness(t *testing.T, e *enginetest.Engine) runtimetest.Harness {
	// Not t.TempDir: Podman takes no folder with a comma in its name.
	root, err := os.MkdirTemp("", "clary-tasks")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	work := filepath.Join(root, "work")
	if err := errors.Join(os.Chmod(root, 0o711), os.Mkdir(work, 0o755), os.Chown(work, uid, uid)); err != nil {
		t.Fatal(err)
	}
	var opened *container.Driver
	h := runtimetest.Harness{
		Open: func(t *testing.T) runtime.Driver {
			d, err := container.Open(container.Config{Root: root + "/tasks", Socket: e.Socket, Simulated: true})
			if err != nil {
				t.Fatal(err)
			}
			opened = d
			if e.Name != "docker" {
				return d
			}
			// As an agent has it: beside that for processes.
			processes, err := process.New(process.Config{Root: t.TempDir(), Groups: cgroup.Open("", "")})
			if err != nil {
				t.Fatal(err)
			}
			return route.New(processes, d)
		},
		Close: func(t *testing.T, _ runtime.Driver) {
			if err := opened.Close(); err != nil {
				t.Error(err)
			}
		},
		Script: func(_ *testing.T, id, script string) runtime.Spec {
			return runtime.Spec{
				ID: id, Image: image, Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}, Dir: "/opt/ml",
				User:      &runtime.User{UID: uid, GID: uid, Name: "tester"},
				Isolation: &runtime.Isolation{Mounts: []runtime.Mount{{Source: work, Target: "/opt/ml"}}},
			}
		},
		Isolate:  func(*runtime.Spec) {},
		Limited:  true,
		Roots:    []string{root},
		Listener: listener,
		Without: map[string]string{
			runtimetest.SecretsClaim:     "an engine keeps variables on its disk, so the driver refuses them",
			runtimetest.LeaseClaim:       exclusive,
			runtimetest.RenewedClaim:     exclusive,
			runtimetest.PrivateTempClaim: "/tmp is the image's, or a mount's",
		},
	}
	if e.Name == "docker" {
		h.Without[runtimetest.PartialClaim] = "dockerd keeps a line back until its end, or 16 KiB of it"
	}
	t.Cleanup(func() { e.Clear() }) // tests of single tasks leave them to be looked at
	return h
}
