package process_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/process"
	"github.com/clary-ml/clary/agent/runtime/runtimetest"
)

var shimPath string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "clary-process")
	if err != nil {
		panic(err)
	}
	shimPath = filepath.Join(dir, "clary-shim")
	build := exec.Command("go", "build", "-o", shimPath, "github.com/clary-ml/clary/cmd/clary-shim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the shim: %v\n%s", err, text))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var hosts atomic.Int64

// newHost gives a test control groups of its own and sees that none is left.
func newHost(t testing.TB) *cgroup.Host {
	parent := fmt.Sprintf("clary-test-%d-%d", os.Getpid(), hosts.Add(1))
	host := cgroup.OpenSelf(parent)
	t.Cleanup(func() {
		if names := host.Names(); len(names) > 0 {
			t.Errorf("control groups are left over: %v", names)
		}
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	return host
}

func open(t testing.TB, root string, host *cgroup.Host) *process.Driver {
	d, err := process.New(process.Config{Root: root, Shim: shimPath, Groups: host})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDriver(t *testing.T) {
	for name, host := range map[string]func(testing.TB) *cgroup.Host{
		"with control groups": newHost,
		"without":             func(testing.TB) *cgroup.Host { return cgroup.Open("", "") },
	} {
		t.Run(name, func(t *testing.T) {
			runtimetest.Run(t, func(t *testing.T) runtimetest.Harness { return harness(t, host(t)) })
		})
	}
}

// TestIsolatedDriver runs the same claims on tasks with a view of their own, and those of
// that view.
func TestIsolatedDriver(t *testing.T) {
	if err := open(t, t.TempDir(), nil).CanIsolate(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	runtimetest.Run(t, func(t *testing.T) runtimetest.Harness {
		h := harness(t, newHost(t))
		script := h.Script
		h.Isolate = isolate
		h.Script = func(t *testing.T, id, text string) runtime.Spec {
			spec := script(t, id, text)
			isolate(&spec)
			return spec
		}
		return h
	})
}

const uid = 234567

// isolate does what it does once.
func isolate(spec *runtime.Spec) {
	if spec.Isolation != nil {
		return
	}
	_ = os.Chown(spec.Dir, uid, uid)
	spec.User = &runtime.User{UID: uid, GID: uid, Name: "tester"}
	spec.Isolation = &runtime.Isolation{Mounts: []runtime.Mount{{Source: spec.Dir, Target: "/opt/ml"}}}
	spec.Dir = "/opt/ml"
}

func harness(t *testing.T, host *cgroup.Host) runtimetest.Harness {
	root := t.TempDir()
	work := t.TempDir()
	without := map[string]string{}
	if lacks := host.Lacks(); len(lacks) > 0 {
		for _, claim := range []string{runtimetest.OutOfMemoryClaim, runtimetest.ForkBombClaim, runtimetest.UsageClaim, runtimetest.CoresClaim} {
			without[claim] = strings.Join(lacks, "; ")
		}
	}
	return runtimetest.Harness{
		Open: func(t *testing.T) runtime.Driver { return open(t, root, host) },
		Close: func(t *testing.T, d runtime.Driver) {
			if err := d.(*process.Driver).Close(); err != nil {
				t.Error(err)
			}
		},
		Script: func(_ *testing.T, id, script string) runtime.Spec {
			return runtime.Spec{ID: id, Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: work}
		},
		Limited: len(without) == 0,
		Without: without,
		Roots:   []string{root},
	}
}
