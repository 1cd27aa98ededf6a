package supervisor_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/clary-ml/clary/agent/feeder"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
)

// lazily gives the script an input of each mode that a feeder serves.
func lazily(a *ledger.Assignment) {
	a.Program.Inputs = []cluster.Input{
		{Channel: "fast", URI: "s3://data/set", Mode: cluster.InputFastFile},
		{Channel: "piped", URI: "s3://data/set", Mode: cluster.InputPipe},
	}
}

// feeding is a bench whose tasks share the node's view or not, with objects to read.
func feeding(t *testing.T, own bool) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting needs root")
	}
	b := newBench(t, func(c *supervisor.Config) {
		c.Feeders = &feeder.Host{Program: os.Args[0], Log: c.Log}
		c.Feed.Access = filepath.Join(filepath.Dir(c.Root), "store")
		c.Hide = []string{filepath.Dir(c.Root)}
		if own {
			c.User = func(string) (runtime.User, error) { return runtime.User{UID: 65534, GID: 65534, Name: "nobody"}, nil }
		}
	})
	for folder := b.dir; folder != os.TempDir(); folder = filepath.Dir(folder) {
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.put("set/a", "hello")
	b.put("set/deep/b", " world")
	return b
}

func (b *bench) put(key, text string) {
	b.Helper()
	path := filepath.Join(b.dir, "store", "data", key)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
}

// noMounts sees that nothing of a feeder stays.
func (b *bench) noMounts() {
	b.Helper()
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), b.dir) {
		b.Error("a mount is left")
	}
}

const readAll = `cd "$SAGEMAKER_BASE_DIR"/input/data && test "$(cat fast/a fast/deep/b)" = "hello world" && test "$(cat piped_0)" = "hello world" &&
	test "$(cat piped_1)" = "hello world" && ! touch fast/a 2>/dev/null`

func TestATaskReadsLazyInputsInANodesViewAndInItsOwn(t *testing.T) {
	for claim, own := range map[string]bool{"the node's view": false, "its own": true} {
		t.Run(claim, func(t *testing.T) {
			b := feeding(t, own)
			b.run(script(readAll, lazily))
			if status := b.ended("digits/main/worker-0.1"); status.State != cluster.TaskSucceeded {
				t.Errorf("it ended as %+v", status)
			}
			b.noMounts()
			if _, err := os.Stat("/opt/ml/input"); err == nil {
				t.Error("the task's folders are made on the machine")
			}
		})
	}
}

func TestLazyInputsGoOnWhileAgentsAreKilledAndReplaced(t *testing.T) {
	b := feeding(t, false)
	wait := filepath.Join(b.dir, "go")
	b.run(script(`cd "$SAGEMAKER_BASE_DIR"/input/data; cat fast/a >/dev/null; while ! test -e `+wait+`; do sleep 0.05; done; `+readAll, lazily))
	b.becomes("digits/main/worker-0.1", cluster.TaskRunning)
	if err := b.agent.close(); err != nil {
		t.Fatal(err)
	}
	b.open(func(c *supervisor.Config) { c.Feeders = &feeder.Host{Program: os.Args[0], Log: c.Log} })
	if err := os.WriteFile(wait, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if status := b.ended("digits/main/worker-0.1"); status.State != cluster.TaskSucceeded {
		t.Errorf("it ended as %+v", status)
	}
	b.noMounts()
}

func TestATaskWhoseFeederDiesFailsAndSaysSoWithOrWithoutAnAgent(t *testing.T) {
	for claim, alone := range map[string]bool{"this agent": false, "the next": true} {
		t.Run(claim, func(t *testing.T) {
			b := feeding(t, false)
			b.run(script(`sleep 1000`, lazily))
			b.becomes("digits/main/worker-0.1", cluster.TaskRunning)
			if alone {
				if err := b.agent.close(); err != nil {
					t.Fatal(err)
				}
			}
			b.killFeeder()
			if alone {
				b.open(func(c *supervisor.Config) { c.Feeders = &feeder.Host{Program: os.Args[0], Log: c.Log} })
			}
			if status := b.ended("digits/main/worker-0.1"); status.State != cluster.TaskFailed || !strings.Contains(status.Reason, "its input feeder died") {
				t.Errorf("it ended as %+v", status)
			}
			b.noMounts()
		})
	}
}

// killFeeder kills the one there is.
func (b *bench) killFeeder() {
	b.Helper()
	pids, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	killed := 0
	for _, path := range pids {
		if text, _ := os.ReadFile(path); strings.HasPrefix(string(text), "clary\x00feeder\x00"+b.dir) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil || syscall.Kill(pid, syscall.SIGKILL) != nil {
				b.Fatalf("%s: %v", path, err)
			}
			killed++
		}
	}
	if killed != 1 {
		b.Fatalf("there are %d feeders", killed)
	}
}

func TestALazyInputThatIsNotThereFailsTheTaskBeforeItStarts(t *testing.T) {
	b := feeding(t, true)
	b.run(script("exit 0", func(a *ledger.Assignment) {
		a.Program.Inputs = []cluster.Input{{Channel: "x", URI: "s3://data/none", Mode: cluster.InputFastFile}}
	}))
	status := b.ended("digits/main/worker-0.1")
	if status.State != cluster.TaskFailed || status.Started != 0 || !strings.Contains(status.Reason, "input x: s3://data/none") {
		t.Errorf("it ended as %+v", status)
	}
	b.noMounts()
}

func TestANodeWithoutFeedersSaysSo(t *testing.T) {
	b := newBench(t, nil)
	b.run(script("exit 0", lazily))
	if status := b.ended("digits/main/worker-0.1"); status.State != cluster.TaskFailed || !strings.Contains(status.Reason, "file mode only") {
		t.Errorf("it ended as %+v", status)
	}
}
