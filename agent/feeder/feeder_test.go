package feeder_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/feeder"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

const patience = 20 * time.Second

// TestMain lets this test binary be a feeder, over a store that is a folder.
func TestMain(m *testing.M) {
	if len(os.Args) != 3 || os.Args[1] != feeder.Argument {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := feeder.Main(ctx, feeder.Options{
		Dir: os.Args[2], Alive: os.NewFile(feeder.AliveDescriptor, "alive"), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Open: func(access string) (staging.Reader, error) { return stagingtest.Store{Dir: access}, nil },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// bench is a task's folder with a store.
type bench struct {
	*testing.T
	host  *feeder.Host
	dir   string
	store stagingtest.Store
	todo  feeder.Instructions
}

func newBench(t *testing.T, inputs ...cluster.Input) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting needs root")
	}
	b := &bench{T: t, host: &feeder.Host{Program: os.Args[0]}, dir: filepath.Join(t.TempDir(), "tasks[1]", "task"), store: stagingtest.Store{Dir: t.TempDir()}}
	b.todo = feeder.Instructions{Inputs: inputs, Data: filepath.Join(b.dir, "data"), Scratch: b.dir, Access: b.store.Dir, Until: "exit.json"}
	if err := os.MkdirAll(b.todo.Data, 0o755); err != nil {
		t.Fatal(err)
	}
	for key, text := range map[string]string{"set/a": "hello", "set/b": " world"} {
		if err := b.store.Put(t.Context(), "data", key, strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := b.host.Stop(b.dir); err != nil {
			t.Error(err)
		}
		b.nothingLeft()
	})
	return b
}

var (
	fast  = cluster.Input{Channel: "fast", URI: "s3://data/set", Mode: cluster.InputFastFile}
	piped = cluster.Input{Channel: "piped", URI: "s3://data/set", Mode: cluster.InputPipe}
)

func (b *bench) start() {
	b.Helper()
	if err := b.host.Start(b.Context(), b.dir, b.todo); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) serves() {
	b.Helper()
	if text, err := os.ReadFile(filepath.Join(feeder.Shown(b.dir, "fast"), "a")); err != nil || string(text) != "hello" {
		b.Errorf("a holds %q, %v", text, err)
	}
	pipes, _ := fs.Glob(os.DirFS(b.todo.Data), "piped_*")
	if len(pipes) != 1 {
		b.Fatalf("there are %v", pipes)
	}
	file, err := os.Open(filepath.Join(b.todo.Data, pipes[0]))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // only read
	_ = file.SetReadDeadline(time.Now().Add(patience))
	if text, err := io.ReadAll(file); err != nil || string(text) != "hello world" {
		b.Errorf("the pipe holds %q, %v", text, err)
	}
}

func (b *bench) pid() int {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "feeder.pid"))
	pid, bad := strconv.Atoi(string(text))
	if err != nil || bad != nil {
		b.Fatal(err, bad)
	}
	return pid
}

func (b *bench) nothingLeft() {
	b.Helper()
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), b.dir) {
		b.Error("a mount is left")
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		if text, _ := os.ReadFile(line); strings.Contains(string(text), b.dir) {
			b.Errorf("a process is left: %q", text)
		}
	}
}

func (b *bench) wait(host *feeder.Host) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- host.Wait(context.Background(), b.dir) }()
	return ended
}

func (b *bench) told(ended <-chan error) error {
	b.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		b.Fatal("nothing is told")
		return nil
	}
}

func TestInputsAreServedAlsoToTheNextAgentAndTakenAwayAtTheEnd(t *testing.T) {
	b := newBench(t, fast, piped)
	b.start()
	b.serves()
	next := &feeder.Host{Program: os.Args[0]}
	ended := b.wait(next)
	b.serves()
	if err := next.Stop(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := b.told(ended); err == nil {
		t.Error("who waits for it is not told that it has ended")
	}
	b.nothingLeft()
	if err := next.Stop(b.dir); err != nil {
		t.Errorf("to stop it again: %v", err)
	}
}

func TestAnAgentThatIsKilledWhileItStagesStartsItAgain(t *testing.T) {
	b := newBench(t, fast, piped)
	b.start()
	first := b.pid()
	b.host = &feeder.Host{Program: os.Args[0]}
	b.start()
	b.serves()
	if second := b.pid(); first == second {
		t.Error("it is the same process")
	}
}

func TestWhatCannotBeServedIsSaidAtOnce(t *testing.T) {
	for claim, c := range map[string]struct {
		input cluster.Input
		kind  fault.Kind
		text  string
	}{
		"no object": {cluster.Input{Channel: "x", URI: "s3://data/none", Mode: cluster.InputFastFile}, fault.NotFound, "input x: s3://data/none"},
		"no manifest": {
			cluster.Input{Channel: "x", URI: "s3://data/set/a", Mode: cluster.InputPipe, Type: cluster.InputAugmentedManifest, Attributes: []string{"a"}},
			fault.Invalid, "line 1",
		},
	} {
		b := newBench(t, fast, c.input)
		if err := b.host.Start(t.Context(), b.dir, b.todo); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", claim, err)
		}
		b.nothingLeft()
	}
	b := newBench(t, fast)
	b.host = &feeder.Host{Program: "/bin/false"}
	if err := b.host.Start(t.Context(), b.dir, b.todo); err == nil || !strings.Contains(err.Error(), "died") {
		t.Errorf("a program that fails: %v", err)
	}
}

func TestTheDeathOfAFeederIsToldToThisAgentAndTheNext(t *testing.T) {
	b := newBench(t, fast, piped)
	b.start()
	ended := b.wait(b.host)
	if err := syscall.Kill(b.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, ended := range []<-chan error{ended, b.wait(&feeder.Host{})} {
		if err := b.told(ended); err == nil || !strings.Contains(err.Error(), "its input feeder died") {
			t.Errorf("it is told: %v", err)
		}
	}
	if err := feeder.Failure(b.dir); err == nil {
		t.Error("it is not written down")
	}
}

func TestDataThatIsGoneIsToldAndThePipeDoesNotEnd(t *testing.T) {
	b := newBench(t, piped)
	b.start()
	ended := b.wait(b.host)
	if err := b.store.Put(t.Context(), "data", "set/b", strings.NewReader("other!"), 6); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join(b.todo.Data, "piped_0"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // only read
	if err := b.told(ended); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "s3://data/set/b") {
		t.Errorf("it is told: %v", err)
	}
	_ = file.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := io.ReadAll(file); err == nil {
		t.Error("the pipe ends as if that were all")
	}
	if err := b.told(b.wait(&feeder.Host{})); !fault.Is(err, fault.Conflict) {
		t.Errorf("the next agent is told: %v", err)
	}
}

func TestAFeederWithoutAnAgentEndsWhenTheTaskHas(t *testing.T) {
	b := newBench(t, fast, piped)
	b.start()
	ended := b.wait(b.host)
	if err := os.WriteFile(filepath.Join(b.dir, "exit.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.told(ended); err == nil {
		t.Error("it goes on")
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), b.dir) {
		t.Error("its mount is left")
	}
}

func TestFeedersOfUnknownTasksAreSweptAway(t *testing.T) {
	b := newBench(t, fast)
	b.start()
	pid := b.pid()
	if err := b.host.Sweep(filepath.Dir(b.dir), func(name string) bool { return name == "task" }); err != nil {
		t.Fatal(err)
	}
	if syscall.Kill(pid, 0) != nil {
		t.Fatal("a known task's was ended")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil { // its dead mount is swept too
		t.Fatal(err)
	}
	if err := b.host.Sweep(filepath.Dir(b.dir), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	b.nothingLeft()
}

func TestAPidThatIsAnothersIsNotKilled(t *testing.T) {
	b := newBench(t, fast)
	b.start()
	if err := syscall.Kill(b.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = b.told(b.wait(b.host))
	if err := os.WriteFile(filepath.Join(b.dir, "feeder.pid"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.host.Stop(b.dir); err != nil { // this test lives on
		t.Error(err)
	}
}
