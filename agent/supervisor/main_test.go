package supervisor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/feeder"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/process"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
)

const patience = 30 * time.Second

// TestMain builds the shim once. Run with CLARY_TEST_AGENT it is an agent instead,
// for tests that kill agents.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CLARY_TEST_AGENT"); dir != "" {
		childAgent(dir)
		return
	}
	if len(os.Args) == 3 && os.Args[1] == feeder.Argument {
		beFeeder(os.Args[2])
		return
	}
	if file := os.Getenv("CLARY_TEST_SERVER"); file != "" {
		beServer(file)
		return
	}
	dir, err := os.MkdirTemp("", "clary-supervisor")
	if err != nil {
		panic(err)
	}
	shim := filepath.Join(dir, "clary-shim")
	build := exec.Command("go", "build", "-o", shim, "github.com/clary-ml/clary/cmd/clary-shim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the shim: %v\n%s", err, text))
	}
	if err := os.Setenv("CLARY_TEST_SHIM", shim); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// beFeeder is a task's feeder over a store that is a folder.
func beFeeder(dir string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := feeder.Main(ctx, feeder.Options{
		Dir: dir, Alive: os.NewFile(feeder.AliveDescriptor, "alive"), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Open: func(access string) (staging.Reader, error) { return stagingtest.Store{Dir: access}, nil },
	})
	if err != nil {
		panic(err)
	}
}

// agent is one agent's life over a folder.
type agent struct {
	*supervisor.Supervisor
	driver *process.Driver
	ledger *ledger.Ledger
}

func openAgent(dir string, host *cgroup.Host, change func(*supervisor.Config)) (*agent, error) {
	driver, err := process.New(process.Config{Root: filepath.Join(dir, "tasks"), Shim: os.Getenv("CLARY_TEST_SHIM"), Groups: host})
	if err != nil {
		return nil, err
	}
	book, err := ledger.Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		return nil, err
	}
	cache, err := staging.OpenCache(filepath.Join(dir, "cache"), 1<<20)
	if err != nil {
		return nil, err
	}
	store := stagingtest.Store{Dir: filepath.Join(dir, "store")}
	config := supervisor.Config{
		Root: filepath.Join(dir, "tasks"), Driver: driver, Ledger: book, Store: store, Cache: cache, Listen: "127.0.0.1",
	}
	if change != nil {
		change(&config)
	}
	s, err := supervisor.Open(context.Background(), config)
	if err != nil {
		return nil, err
	}
	return &agent{s, driver, book}, nil
}

func (a *agent) close() error {
	a.Close()
	if err := a.driver.Close(); err != nil {
		return err
	}
	return a.ledger.Close()
}

// childAgent runs what the file desired.json says until it is killed.
func childAgent(dir string) {
	a, err := openAgent(dir, cgroup.OpenSelf(os.Getenv("CLARY_TEST_GROUP")), nil)
	if err != nil {
		panic(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "desired.json"))
	if err != nil {
		panic(err)
	}
	var desired []ledger.Assignment
	if err := json.Unmarshal(text, &desired); err != nil {
		panic(err)
	}
	if err := a.Desired(true, desired, nil); err != nil {
		panic(err)
	}
	select {}
}

// bench is a test's node.
type bench struct {
	*testing.T
	dir   string
	group string
	host  *cgroup.Host
	agent *agent
}

var benches atomic.Int64

// newBench opens an agent and sees that its tasks, processes and groups are gone
// when the test is over.
func newBench(t *testing.T, change func(*supervisor.Config)) *bench {
	t.Helper()
	b := &bench{T: t, dir: t.TempDir(), group: fmt.Sprintf("clary-test-sup-%d-%d", os.Getpid(), benches.Add(1))}
	b.host = cgroup.OpenSelf(b.group)
	b.open(change)
	t.Cleanup(b.clean)
	return b
}

func (b *bench) open(change func(*supervisor.Config)) {
	b.Helper()
	a, err := openAgent(b.dir, b.host, change)
	if err != nil {
		b.Fatal(err)
	}
	b.agent = a
}

func (b *bench) clean() {
	if err := b.agent.Desired(true, nil, nil); err != nil {
		b.Error(err)
	}
	b.until("everything is forgotten", func(held map[string]cluster.TaskStatus) bool { return len(held) == 0 })
	if err := b.agent.close(); err != nil {
		b.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(b.dir, "tasks")); len(left) > 0 {
		b.Errorf("task folders are left over: %v", left)
	}
	if names := b.host.Names(); len(names) > 0 {
		b.Errorf("control groups are left over: %v", names)
	}
	if left := processesOf(b.dir); len(left) > 0 {
		b.Errorf("processes are left over: %v", left)
	}
	if err := b.host.Close(); err != nil {
		b.Error(err)
	}
}

// processesOf lists the processes that hold a folder as argument or in their
// environment: shims and tasks of this test.
func processesOf(dir string) []string {
	var found []string
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(filepath.Join("/proc", entry.Name(), file))
			if err == nil && strings.Contains(string(text), dir+"/tasks") {
				found = append(found, entry.Name()+": "+strings.ReplaceAll(string(text), "\x00", " "))
				break
			}
		}
	}
	return found
}

// until waits for what the agent tells to be as wanted.
func (b *bench) until(what string, wanted func(map[string]cluster.TaskStatus) bool) {
	b.Helper()
	deadline := time.After(patience)
	for {
		held, version := b.agent.Held()
		by := map[string]cluster.TaskStatus{}
		for _, h := range held {
			by[h.Task] = h.Status
		}
		if wanted(by) {
			return
		}
		select {
		case <-b.agent.Changed(version):
		case <-deadline:
			b.Fatalf("waited in vain until %s: %+v", what, by)
		}
	}
}

// ended waits for a task's end.
func (b *bench) ended(id string) cluster.TaskStatus {
	b.Helper()
	var status cluster.TaskStatus
	b.until(id+" has ended", func(held map[string]cluster.TaskStatus) bool {
		status = held[id]
		return status.State.Ended()
	})
	return status
}

func (b *bench) becomes(id string, state cluster.TaskState) {
	b.Helper()
	b.until(fmt.Sprintf("%s is %s", id, state), func(held map[string]cluster.TaskStatus) bool { return held[id].State == state })
}

// script is an assignment of one task that runs a shell script.
func script(text string, change ...func(*ledger.Assignment)) ledger.Assignment {
	a := ledger.Assignment{
		Task: cluster.Task{
			ID: "digits/main/worker-0.1", Job: "digits", Gang: "digits/main", Role: "worker", Attempt: 1,
			Allocation: cluster.Allocation{Resources: cluster.Resources{MilliCPU: 1000, Memory: 64 << 20}},
		},
		Program: cluster.Program{Command: []string{"sh", "-c", text}},
	}
	for _, c := range change {
		c(&a)
	}
	return a
}

func (b *bench) run(a ...ledger.Assignment) {
	b.Helper()
	if err := b.agent.Desired(false, a, nil); err != nil {
		b.Fatal(err)
	}
}

// spawn starts another process as agent of the bench's folder.
func (b *bench) spawn(desired ...ledger.Assignment) *exec.Cmd {
	b.Helper()
	text, err := json.Marshal(desired)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "desired.json"), text, 0o600); err != nil {
		b.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "CLARY_TEST_AGENT="+b.dir, "CLARY_TEST_GROUP="+b.group)
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	return child
}

func kill(t *testing.T, child *exec.Cmd) {
	t.Helper()
	if err := child.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
}

// awaitGone waits until nothing has the name any more.
func awaitGone(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(path); os.IsNotExist(err) {
			return
		}
	}
	t.Fatalf("%s is still there", path)
}

// awaitFile waits until another process has made the file.
func awaitFile(t *testing.T, path string) string {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatalf("%s does not appear", path)
	return ""
}
