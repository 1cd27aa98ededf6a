package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const hybrid = `25 1 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
27 25 0:25 / /sys/fs/cgroup/memory rw shared:9 master:1 - cgroup cgroup rw,memory
28 25 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
29 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
rubbish
30 25 0:1 / /x rw - cgroup
`

func TestMountsAreFoundInEveryLayout(t *testing.T) {
	m := parseMounts(hybrid)
	if m.unified != "/sys/fs/cgroup/unified" || m.v1["cpu"] != "/sys/fs/cgroup/cpu,cpuacct" || m.v1["cpuacct"] != m.v1["cpu"] || m.v1["memory"] != "/sys/fs/cgroup/memory" || m.v1["pids"] != "" {
		t.Errorf("hybrid: %+v", m)
	}
	if m := parseMounts("25 1 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"); m.unified != "/sys/fs/cgroup" || len(m.v1) != 0 {
		t.Errorf("v2: %+v", m)
	}
	if m := parseMounts(""); m.unified != "" || len(m.v1) != 0 {
		t.Errorf("none: %+v", m)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add(hybrid)
	f.Fuzz(func(_ *testing.T, text string) { parseMounts(text) })
}

func TestWithoutControlGroupsItIsSaidWhatIsNotLimited(t *testing.T) {
	lacks := Open("", "clary").Lacks()
	if len(lacks) != 3 || !strings.Contains(lacks[1], "memory of tasks is not limited") {
		t.Errorf("lacks %q", lacks)
	}
}

func TestAFolderThatMayNotBeWrittenIsSaidWithTheRemedy(t *testing.T) {
	lacks := Open("25 1 0:23 / /proc/self/fdinfo rw - cgroup2 cgroup2 rw\n", "clary").Lacks()
	if len(lacks) != 3 || !strings.Contains(lacks[0], "run it as root, or name a delegated folder") {
		t.Errorf("lacks %q", lacks)
	}
}

// The files of a pure v2 tree, which this machine may not have, are only written
// into a folder here: what is checked is what would be told to the kernel.
func TestLimitsInAV2Tree(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max"} {
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := Group{Unified: dir, V2: controllers}
	if err := g.limit(Limits{CPU: 1500, CPUHard: true, Memory: 1 << 30, Pids: 99}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"cpu.weight": "150", "cpu.max": "150000 100000", "memory.max": "1073741824",
		"memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "99",
	} {
		if text, _ := os.ReadFile(filepath.Join(dir, file)); string(text) != want {
			t.Errorf("%s is %q, want %q", file, text, want)
		}
	}
}

func newHost(t *testing.T) *Host {
	t.Helper()
	h := OpenSelf(fmt.Sprintf("clary-test-cgroup-%d", os.Getpid()))
	if len(h.Lacks()) > 0 {
		t.Skipf("not all can be limited here: %v", h.Lacks())
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func TestAProcessForkedInsideIsCountedAndKilled(t *testing.T) {
	h := newHost(t)
	g, err := h.Create("a", Limits{CPU: 500, CPUHard: true, Memory: 64 << 20, Pids: 50})
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sh", "-c", "sleep 1000 & sleep 1000 & wait")
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		leave, err := g.Enter()
		if err != nil {
			done <- err
			return
		}
		folder, err := g.SpawnFD()
		if err == nil && folder != nil {
			child.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(folder.Fd())}
			defer folder.Close() //nolint:errcheck // only read
		}
		if err == nil {
			err = child.Start()
		}
		if errLeave := leave(); err == nil {
			err = errLeave
		}
		for _, parent := range h.v1 { // a shim stays in the shelter; this thread goes home
			if errHome := write(filepath.Dir(parent), "tasks", "0"); err == nil {
				err = errHome
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); len(g.Pids()) < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("inside are only %v", g.Pids())
		}
	}
	for _, dir := range g.folders() {
		text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if n := len(strings.Fields(string(text))); n != 3 {
			t.Errorf("%s holds %d processes", dir, n)
		}
	}
	if found := h.Find("a"); len(found.folders()) != len(g.folders()) {
		t.Errorf("found again: %+v, want %+v", found, g)
	}
	reaped := make(chan error)
	go func() { reaped <- child.Wait() }()
	if err := g.Kill(10 * time.Second); err != nil {
		t.Error(err)
	}
	<-reaped
	if usage := g.Usage(); usage.CPUNanos == 0 || usage.PeakMemory == 0 {
		t.Errorf("usage %+v", usage)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if !h.Find("a").Empty() {
		t.Error("it is still there")
	}
}

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "../x", ".hidden"} {
		if _, err := Open("", "x").Create(name, Limits{}); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}
