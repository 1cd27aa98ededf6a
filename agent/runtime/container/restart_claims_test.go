package container_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	moby "github.com/moby/moby/client"

	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
	"github.com/clary-ml/clary/internal/fault"
)

func restarts(t *testing.T, e *enginetest.Engine) {
	b := newBench(t, e)
	for i, end := range []func(){func() { e.End(syscall.SIGTERM) }, e.Crash} {
		id := fmt.Sprintf("job/main/worker-%d.1", i)
		if err := b.start(id, image, "sleep 300"); err != nil {
			t.Fatal(err)
		}
		end()
		if err := b.start("job/main/away-0.1", image, "true"); !fault.Is(err, fault.Unready) {
			t.Errorf("a start without an engine: %v", err)
		}
		e.Run()
		if exit := b.wait(id); !exit.Unknown || !strings.Contains(exit.Error, "engine ended") {
			t.Errorf("way %d: it ended as %+v", i, exit)
		}
		b.must(fmt.Sprintf("job/main/after-%d.1", i), image)
	}
	// The agent may go with the engine: then nobody saw it go.
	if err := b.start("job/main/alone-0.1", image, "sleep 300"); err != nil {
		t.Fatal(err)
	}
	if err := b.start("job/main/alone-1.1", image, "exit 6"); err != nil {
		t.Fatal(err)
	}
	b.wait("job/main/alone-1.1")
	if err := b.d.Close(); err != nil {
		t.Error(err)
	}
	e.End(syscall.SIGTERM)
	b.open()
	if found, err := b.d.Recover(t.Context()); err != nil || len(found) == 0 {
		t.Errorf("without an engine recovered %+v, %v", found, err)
	}
	e.Run()
	b.again()
	if exit := b.wait("job/main/alone-0.1"); !exit.Unknown {
		t.Errorf("it ended as %+v", exit)
	}
	if exit := b.wait("job/main/alone-1.1"); exit.Code != 6 || exit.Unknown {
		t.Errorf("it ended as %+v", exit)
	}
	foundDead(t, e, b)
	comesLater(t, e, b)
	// With live-restore containers outlive the engine, and so do exit codes.
	if err := os.WriteFile(e.Path("daemon.json"), []byte(`{"live-restore": true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Extra = []string{"--config-file", e.Path("daemon.json")}
	e.End(syscall.SIGTERM)
	e.Run()
	if err := b.start("job/main/lives-0.1", image, "sleep 2; exit 5"); err != nil {
		t.Fatal(err)
	}
	e.End(syscall.SIGTERM)
	e.Run()
	if exit := b.wait("job/main/lives-0.1"); exit.Code != 5 || exit.Unknown {
		t.Errorf("it ended as %+v", exit)
	}
}

// foundDead has programs end with 0 while neither an agent nor its engine is there. A monitor that is there still may tell the engine so; without
// one it says 255.
func foundDead(t *testing.T, e *enginetest.Engine, b *bench) {
	for nap, forgotten := range map[string]bool{"sleep 31557": false, "sleep 31558": true} {
		id := "job/main/dead-" + nap[len(nap)-1:] + ".1"
		if err := b.start(id, image, nap+"; exit 0"); err != nil {
			t.Fatal(err)
		}
		if err := b.d.Close(); err != nil {
			t.Error(err)
		}
		e.Crash()
		wake(t, nap)
		if forgotten {
			killAll(func(line string) bool {
				return strings.Contains(line, "containerd-shim") && strings.Contains(line, e.Path("exec"))
			})
		}
		e.Run()
		b.again()
		if exit := b.wait(id); forgotten && !exit.Unknown || !exit.Unknown && (exit.Code != 0 || exit.Signal != 0) {
			t.Errorf("it ended as %+v", exit)
		}
	}
}

// wake kills the one program of a command line, as soon as it is there.
func wake(t *testing.T, program string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); killAll(func(line string) bool { return line == program }) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("there is no %s", program)
		}
	}
}

// killAll kills the programs whose command lines are meant, and counts them.
func killAll(meant func(line string) bool) (killed int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		text, _ := os.ReadFile(path)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if meant(strings.TrimRight(strings.ReplaceAll(string(text), "\x00", " "), " ")) && syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}

// comesLater has an agent begin before its engine, which has what nobody knows any more.
func comesLater(t *testing.T, e *enginetest.Engine, b *bench) {
	if err := b.start("job/main/orphan-0.1", image, "exit 0"); err != nil {
		t.Fatal(err)
	}
	b.wait("job/main/orphan-0.1")
	orphan := filepath.Join(b.config.Root, "job~main~orphan-0.1")
	if err := os.RemoveAll(orphan); err != nil {
		t.Fatal(err)
	}
	e.End(syscall.SIGTERM)
	b.again()
	e.Run()
	client := e.Client()
	defer client.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		filters := moby.Filters{}.Add("label", "clary.task=job/main/orphan-0.1")
		list, err := client.ContainerList(t.Context(), moby.ContainerListOptions{All: true, Filters: filters})
		if err == nil && len(list.Items) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v, %v", list.Items, err)
		}
	}
}
