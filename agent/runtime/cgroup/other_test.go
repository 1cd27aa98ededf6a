package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

func TestOnlyTheControlGroupsThatBearTheNameAreFound(t *testing.T) {
	root := t.TempDir()
	at := mounts{unified: root + "/unified", v1: map[string]string{"memory": root + "/memory", "cpu": root + "/cpu", "cpuacct": root + "/cpu"}}
	for _, dir := range []string{"unified/docker/c1d2", "memory/docker/c1d2", "cpu/docker/c1d2", "unified/system.slice/docker-c1d2.scope/init"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root+"/unified/system.slice/docker-c1d2.scope/cgroup.controllers", []byte("cpuset cpu io memory pids\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v1 := named(at, "5:memory:/docker/c1d2\n4:cpu,cpuacct:/docker/c1d2/inner\n3:pids:/docker/c1d2\n1:name=systemd:/docker/c1d2\n0::/docker/c1d2\n", "c1d2")
	if v1.Unified != root+"/unified/docker/c1d2" || v1.Legacy["memory"] != root+"/memory/docker/c1d2" || v1.Legacy["cpuacct"] != root+"/cpu/docker/c1d2" || len(v1.Legacy) != 3 || len(v1.V2) > 0 {
		t.Errorf("beside each other: %+v", v1)
	}
	v2 := named(at, "0::/system.slice/docker-c1d2.scope/init\n", "c1d2")
	if v2.Unified != root+"/unified/system.slice/docker-c1d2.scope" || len(v2.Legacy) > 0 || len(v2.V2) != 3 {
		t.Errorf("version 2: %+v", v2)
	}
	for _, told := range []string{"", "rubbish", "0::/user.slice/user-0.slice", "0::/../../docker/c1d2", "5:memory:/docker/other\n"} {
		if g := named(at, told, "c1d2"); !g.Empty() {
			t.Errorf("of %q it finds %+v", told, g)
		}
	}
	if g := named(at, "0::/docker/c1d2", ""); !g.Empty() {
		t.Errorf("without a name it finds %+v", g)
	}
}

// within runs a script in a group to its end; look is called when it is inside.
func within(t *testing.T, g Group, script string, look func(pid int)) *os.ProcessState {
	t.Helper()
	// The script waits until it is inside.
	child := exec.Command("sh", "-c", "read go; "+script)
	stdin, err := child.StdinPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range g.folders() {
		if err := write(dir, "cgroup.procs", strconv.Itoa(child.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	look(child.Process.Pid)
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	return child.ProcessState
}

func TestAKillForMemoryIsSeenAlsoWhenTheGroupIsGone(t *testing.T) {
	h := newHost(t)
	g, err := h.Create("eats", Limits{Memory: 24 << 20})
	if err != nil {
		t.Fatal(err)
	}
	w, err := g.WatchOOM()
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	ended := within(t, g, `x=aaaaaaaaaaaaaaaa; while :; do x="$x$x"; done`, func(pid int) {
		if found := Of(pid, "/eats"); len(found.folders()) != len(g.folders()) {
			t.Errorf("its groups are found as %+v, and are %+v", found, g)
		}
		if found := Named("eats"); len(found.Pids()) != 1 || found.Pids()[0] != pid {
			t.Errorf("by name are found %+v, with processes %v", found, found.Pids())
		}
	})
	if status, ok := ended.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("it ended with %v", ended)
	}
	<-w.over
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if left := Named("eats"); !left.Empty() {
		t.Errorf("by name are found %+v", left)
	}
	if !g.Gone() || !w.Killed() {
		t.Errorf("the group is gone: %t; killed for memory: %t", g.Gone(), w.Killed())
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestAGroupThatEndsInPeaceWasNotKilledForMemory(t *testing.T) {
	h := newHost(t)
	g, err := h.Create("fits", Limits{Memory: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	w, err := g.WatchOOM()
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	within(t, g, "true", func(int) {})
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	<-w.over // the kernel tells of the group's end
	if w.Killed() {
		t.Error("the end of a group is taken for a kill")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// The files of a v2 tree are played: each news is a write.
func TestInAV2TreeAKillForMemoryIsSeen(t *testing.T) {
	dir := t.TempDir()
	events := filepath.Join(dir, "memory.events")
	say := func(text string) {
		t.Helper()
		if err := os.WriteFile(events, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	say("low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n")
	w, err := Group{Unified: dir, V2: controllers}.WatchOOM()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close() //nolint:errcheck // nothing to lose
	say("low 0\nhigh 3\nmax 2\noom 0\noom_kill 0\n")
	if w.Killed() {
		t.Error("a limit that is only reached is no kill")
	}
	say("low 0\nhigh 3\nmax 2\noom 1\noom_kill 1\n")
	<-w.over
	if !w.Killed() {
		t.Error("the kill is not seen")
	}
}
