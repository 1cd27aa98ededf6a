package container_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/cgroup"
	driver "github.com/clary-ml/clary/agent/runtime/container"
	"github.com/clary-ml/clary/internal/smalldisk"
)

// refusingDocker makes containers of an ID, starts none, and calls a function before it removes one, which may say why it cannot.
type refusingDocker struct {
	playedDocker
	id      string
	root    string // of its own folders
	merged  string // where it says that a container's root is
	removes func() error
}

func (d *refusingDocker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodDelete:
		err := d.removes()
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		_ = json.NewEncoder(w).Encode(map[string]string{"message": err.Error()})
	case strings.HasSuffix(r.URL.Path, "/info"):
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"DockerRootDir": d.root})
	case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/containers/"):
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"Id": %q, "GraphDriver": {"Data": {"MergedDir": %q}}, "State": {"StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"}}`, d.id, d.merged)
	default:
		d.playedDocker.ServeHTTP(w, r)
	}
}

// start has a driver over the root start a container there.
func (d *refusingDocker) start(t *testing.T, root string) error {
	t.Helper()
	server := httptest.NewServer(d)
	defer server.Close()
	driver, err := driver.Open(driver.Config{Root: root, Socket: "tcp://" + server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close() //nolint:errcheck // nothing runs
	_, err = driver.Start(t.Context(), runtime.Spec{ID: "job/main/worker-0.1", Image: "team/tool:1"})
	return err
}

// An engine that is killed while it removes a container tells afterwards neither that it is mounted nor where, but in what it complains of.
func TestWhatAnEngineForgotToUnmountOfAContainerItWasRemovingIsUnmounted(t *testing.T) {
	for name, c := range map[string]struct {
		ours   bool
		root   func(dir string) string
		merged string
	}{
		"in its own folder":           {true, func(dir string) string { return dir }, ""},
		"beside the container's root": {true, func(dir string) string { return dir }, "root"},
		"at the container's root":     {true, func(string) string { return "" }, "merged"},
		"in a folder not its own":     {false, func(dir string) string { return dir + "-other" }, ""},
		"it tells no folder of it":    {false, func(string) string { return "" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			merged := filepath.Join(dir, "merged")
			if err := os.Mkdir(merged, 0o700); err != nil {
				t.Fatal(err)
			}
			smalldisk.On(t, merged, 1<<20)
			inUse, err := os.Open(merged) // by a process that has not ended yet
			if err != nil {
				t.Fatal(err)
			}
			defer inUse.Close()
			played := &refusingDocker{id: strings.Repeat("0123456789abcdef", 4), root: c.root(dir), removes: func() error {
				if errors.Is(os.Remove(merged), syscall.EBUSY) {
					return fmt.Errorf(`driver "overlay2" failed to remove root filesystem: unlinkat %s: device or resource busy`, merged)
				}
				return nil
			}}
			if c.merged != "" {
				played.merged = filepath.Join(dir, c.merged)
			}
			if err := played.start(t, filepath.Join(t.TempDir(), "tasks")); err == nil {
				t.Error("the played engine starts a container")
			}
			if _, err := os.Stat(merged); errors.Is(err, fs.ErrNotExist) != c.ours {
				t.Errorf("what is mounted is gone: %v", err)
			}
		})
	}
}

// An agent may be killed at any time. With the note, and without its container, the next one would find a task that ran, and
// that nobody knows the end of.
func TestTheNoteOfAContainerThatDidNotStartGoesBeforeIt(t *testing.T) {
	root := filepath.Join(t.TempDir(), "tasks")
	removed := 0
	played := &refusingDocker{id: strings.Repeat("0123456789abcdef", 4), removes: func() error {
		removed++
		if _, err := os.Stat(filepath.Join(root, "job~main~worker-0.1", "container.json")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("when the container is removed its note is there: %v", err)
		}
		return nil
	}}
	if err := played.start(t, root); err == nil || removed != 1 {
		t.Errorf("the start says %v; %d containers were removed", err, removed)
	}
}

// What a killed engine forgot is looked for by the container's ID, and ended. A word that is in the names of others' control groups is none.
func TestWhatIsNoIDOfAContainerEndsNoControlGroup(t *testing.T) {
	word := fmt.Sprintf("clary-word-%d", os.Getpid())
	host := cgroup.OpenSelf(word)
	if lacks := host.Lacks(); len(lacks) > 0 {
		t.Skipf("skipped: %v", lacks)
	}
	defer host.Close() //nolint:errcheck // nothing was put there
	if cgroup.Named(word).Empty() {
		t.Fatal("there is no group of that name, and nothing to take it for")
	}
	played := &refusingDocker{id: word, removes: func() error { return nil }}
	if err := played.start(t, filepath.Join(t.TempDir(), "tasks")); err == nil {
		t.Error("the container counts as one that may have run")
	}
}

// endedDocker says of every container that it has ended.
type endedDocker struct {
	playedDocker
	id string
}

func (d *endedDocker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/json") {
		d.playedDocker.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"Id": %q, "State": {"ExitCode": 3, "StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "2026-01-01T00:00:01Z"}}`, d.id)
}

// An engine that is killed may know nothing afterwards of the monitor of a container that has ended.
func TestTheMonitorOfAContainerThatEndedUnseenIsEnded(t *testing.T) {
	id := strings.Repeat("fedcba9876543210", 4)
	monitor := &exec.Cmd{Path: "/bin/sh", Args: []string{"containerd-shim-runc-v2", "-c", "sleep 1000; exit", "-id", id, "-address", "gone"}, SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- monitor.Wait() }()
	defer func() { _ = syscall.Kill(-monitor.Process.Pid, syscall.SIGKILL) }() // what it started
	root := filepath.Join(t.TempDir(), "tasks")
	folder := filepath.Join(root, "job~main~worker-0.1")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "container.json"), []byte(`{"container": "c"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&endedDocker{id: id})
	defer server.Close()
	d, err := driver.Open(driver.Config{Root: root, Socket: "tcp://" + server.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // nothing runs
	if _, err := d.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exit, err := d.Wait(t.Context(), "job/main/worker-0.1"); err != nil || exit.Code != 3 {
		t.Errorf("it ended as %+v, %v", exit, err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the monitor is still there")
	}
}
