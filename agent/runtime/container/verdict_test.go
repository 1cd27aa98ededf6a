package container_test

import (
	"context"
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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	driver "github.com/clary-ml/clary/agent/runtime/container"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
)

// What an engine says of a container.
const (
	isRunning = `{"Status": "running", "Running": true, "StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"}`
	isGone    = ""
)

func hasEnded(code int, started, ended time.Time) string {
	return fmt.Sprintf(`{"Status": "exited", "ExitCode": %d, "StartedAt": %q, "FinishedAt": %q}`, code, started.UTC().Format(time.RFC3339Nano), ended.UTC().Format(time.RFC3339Nano))
}

// within waits for what must come soon.
func within(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not come", what)
	}
}

// tellingDocker says of every container what it is told to, and to those who wait for its end that it has.
type tellingDocker struct {
	playedDocker
	waits chan struct{} // somebody has begun to wait
	ends  chan struct{} // closed: they are told
	asked func()        // it is asked whether it is there

	mu   sync.Mutex
	says string
}

func (d *tellingDocker) say(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.says = what
}

func (d *tellingDocker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	says, asked := d.says, d.asked
	d.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/wait"):
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		d.waits <- struct{}{}
		select {
		case <-d.ends:
			fmt.Fprint(w, `{"StatusCode": 0}`)
		case <-r.Context().Done():
		}
	case strings.HasSuffix(r.URL.Path, "/json") && strings.Contains(r.URL.Path, "/containers/c/") && says != isGone:
		fmt.Fprintf(w, `{"Id": "c", "State": %s}`, says)
	default:
		if strings.HasSuffix(r.URL.Path, "/_ping") && asked != nil {
			asked()
		}
		d.playedDocker.ServeHTTP(w, r)
	}
}

// tells plays an engine.
func tells(t *testing.T, says string) (played *tellingDocker, address string) {
	played = &tellingDocker{says: says, waits: make(chan struct{}, 8), ends: make(chan struct{})}
	server := httptest.NewServer(played)
	t.Cleanup(server.Close)
	return played, "tcp://" + server.Listener.Addr().String()
}

// left is the root of an agent that has died, with the note of one container.
func left(t *testing.T, boot string) (root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "tasks")
	folder := filepath.Join(root, "job~main~worker-0.1")
	err := os.MkdirAll(folder, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "container.json"), fmt.Appendf(nil, `{"container": "c", "boot": %q}`, boot), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// recovered is the driver of the next agent.
func recovered(t *testing.T, root, address string) *driver.Driver {
	t.Helper()
	d, err := driver.Open(driver.Config{Root: root, Socket: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if found, err := d.Recover(t.Context()); err != nil || len(found) != 1 {
		t.Fatalf("recovered %+v, %v", found, err)
	}
	return d
}

func exitOf(t *testing.T, d *driver.Driver) runtime.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	exit, err := d.Wait(ctx, "job/main/worker-0.1")
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

// An engine tells an exit code of every container that does not run, also where it knows none.
func TestAnExitCodeThatAnEngineMakesUpIsNotBelieved(t *testing.T) {
	now := time.Now()
	just, long := now.Add(-time.Second), time.Unix(1e9, 0) // the machine is up since some time between
	for name, c := range map[string]struct {
		boot string
		says string
		want int // -1: nobody knows
	}{
		"255 of a container found dead while no agent was there":             {shim.Boot(), hasEnded(255, just, now), -1},
		"0 of a container found dead after the machine went down":            {"another", hasEnded(0, long, now), -1},
		"0 at no time, as Podman does after the machine went down":           {"another", hasEnded(0, long, time.Time{}), -1},
		"-1, as Podman does of a container whose monitor was killed":         {shim.Boot(), hasEnded(-1, just, now), -1},
		"0 of a container that ended while no agent was there":               {shim.Boot(), hasEnded(0, just, now), 0},
		"3 of a container that ended while no agent was there":               {shim.Boot(), hasEnded(3, just, now), 3},
		"3 of a container that had ended when the machine went down":         {"another", hasEnded(3, long.Add(-time.Minute), long), 3},
		"0 of a container of an agent that did not note the machine's start": {"", hasEnded(0, long, now), -1},
	} {
		t.Run(name, func(t *testing.T) {
			played, address := tells(t, c.says)
			root := left(t, c.boot)
			for range 2 { // who asks again is told the same, though the container has gone
				d := recovered(t, root, address)
				if exit := exitOf(t, d); exit.Unknown != (c.want < 0) || exit.Code != c.want || exit.Ended.IsZero() {
					t.Errorf("it ended as %+v", exit)
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
				played.say(isGone)
			}
		})
	}
}

func TestAContainerThatPodmanIsEndingHasNotEnded(t *testing.T) {
	played, address := tells(t, `{"Status": "stopping", "StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"}`)
	d := recovered(t, left(t, shim.Boot()), address)
	within(t, played.waits, "a wait for its end")
	played.say(hasEnded(7, time.Now(), time.Now()))
	close(played.ends)
	if exit := exitOf(t, d); exit.Code != 7 || exit.Unknown {
		t.Errorf("it ended as %+v", exit)
	}
}

// Until it is known who ended a container an agent that ends leaves the question to the next one.
func TestAnAgentThatEndsBeforeItsVerdictHasNone(t *testing.T) {
	played, address := tells(t, isRunning)
	root := left(t, shim.Boot())
	d := recovered(t, root, address)
	within(t, played.waits, "a wait for its end")
	wonders := make(chan struct{}, 1000)
	played.mu.Lock()
	played.asked = func() { wonders <- struct{}{} }
	played.mu.Unlock()
	played.say(hasEnded(143, time.Now(), time.Now()))
	close(played.ends)
	within(t, wonders, "the question who ended it")
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if exit, err := d.Wait(t.Context(), "job/main/worker-0.1"); !fault.Is(err, fault.Unready) {
		t.Errorf("it is told to have ended as %+v, %v", exit, err)
	}
	if exit := exitOf(t, recovered(t, root, address)); !exit.Unknown {
		t.Errorf("the next agent says that it ended as %+v", exit)
	}
}

// frozenEnv makes the test's program an agent, of the engine at an address and with the tasks in a folder.
const frozenEnv = "CLARY_TEST_FROZEN_AGENT"

// An engine that is told to end tells those who wait for a container of it first. An agent that is frozen meanwhile hears of that when the
// engine is back.
func TestAFrozenAgentDidNotSeeWhoEndedAContainer(t *testing.T) {
	if address, root, ok := strings.Cut(os.Getenv(frozenEnv), " "); ok {
		exit := exitOf(t, recovered(t, root, address))
		text, _ := json.Marshal(exit)
		fmt.Printf("%s\n", text)
		return
	}
	played, address := tells(t, isRunning)
	agent := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	agent.Env = append(os.Environ(), frozenEnv+"="+address+" "+left(t, shim.Boot()))
	var said strings.Builder
	agent.Stdout, agent.Stderr = &said, os.Stderr
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	signal := func(s syscall.Signal) {
		if err := agent.Process.Signal(s); err != nil {
			t.Error(err)
		}
	}
	within(t, played.waits, "a wait for its end")
	signal(syscall.SIGSTOP)
	played.say(hasEnded(143, time.Now(), time.Now()))
	close(played.ends)
	time.Sleep(5 * time.Second / 2) // what an engine takes to end and to begin: nothing is waited for
	signal(syscall.SIGCONT)
	if err := agent.Wait(); err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(said.String(), "\n")
	var exit runtime.Exit
	if err := json.Unmarshal([]byte(line), &exit); err != nil || !exit.Unknown {
		t.Errorf("it is told to have ended as %s, %v", said.String(), err)
	}
}

func TestATaskWhoseNoteCannotBeReadIsNotForgotten(t *testing.T) {
	_, address := tells(t, isRunning)
	root := left(t, shim.Boot())
	note := filepath.Join(root, "job~main~worker-0.1", "container.json")
	if err := errors.Join(os.Remove(note), os.Symlink("container.json", note)); err != nil { // a file that is there, and cannot be opened
		t.Fatal(err)
	}
	d, err := driver.Open(driver.Config{Root: root, Socket: address})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // nothing runs
	if found, err := d.Recover(t.Context()); !fault.Is(err, fault.Internal) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("recovered %+v, %v", found, err)
	}
}
