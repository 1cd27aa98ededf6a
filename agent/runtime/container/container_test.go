package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/container"
	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
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
	h := runtimetest.Harness{
		Open: func(t *testing.T) runtime.Driver {
			d, err := container.Open(container.Config{Root: root + "/tasks", Socket: e.Socket, Simulated: true})
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Close: func(t *testing.T, d runtime.Driver) {
			if err := d.(*container.Driver).Close(); err != nil {
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
			"gives a task its secrets and leaves them in no file": "an engine keeps variables on its disk, so the driver refuses them",
			"leaves nothing of a task's descendants":              "they end with the container, and their numbers are its own",
			"gives a task a private and bounded /tmp":             "/tmp is the image's, or a mount's",
		},
	}
	if e.Name == "podman" {
		h.Without["reports the signal that ended a task"] = "without an init, process 1 of a container cannot signal itself"
		h.Without["reports a kill for memory as such"] = "Podman does not say that memory was the reason"
		h.Without["gives a task no privileges and no way to any"] = "Podman's own filter lets programs make user namespaces"
	}
	t.Cleanup(func() { e.Clear() }) // tests of single tasks leave them to be looked at
	return h
}
