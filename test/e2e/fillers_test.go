package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/runtime/container/enginetest"
)

// hog is a program that wants more than it may, and what must be said of it.
type hog struct {
	name, script string
	flags        []string
	reason       string
}

// hogs run as processes and in containers alike: with a shell and small tools.
var hogs = []hog{
	{"memory", `x=a; while :; do x=$x$x; done`, []string{"--memory", "64MiB"}, "killed: out of memory (limit 64 MiB)"},
	{"shared-memory", `dd if=/dev/zero of=/dev/shm/x bs=1M count=500; exit 1`, []string{"--memory", "64MiB"}, "killed: out of memory (limit 64 MiB)"},
	{"disk", `dd if=/dev/zero of=/opt/ml/model/x bs=1M count=1000; sleep 60`, []string{"--disk", "50MiB"}, "killed: used more disk than it may (limit 50 MiB;"},
	{"temporary", `trap "" TERM; dd if=/dev/zero of=/tmp/x bs=1M count=1000; sleep 60`, []string{"--disk", "50MiB"}, "killed: used more disk than it may (limit 50 MiB;"},
	{"deleted", `exec 3>/tmp/x; rm /tmp/x; dd if=/dev/zero bs=1M count=1000 >&3; sleep 60`, []string{"--disk", "50MiB"}, "killed: used more disk than it may (limit 50 MiB;"},
	{"inodes", `cd /tmp; i=0; while :; do : >f$i; i=$((i+1)); done`, []string{"--disk", "20MiB"}, "killed: used more disk than it may (limit 20 MiB;"},
	// Each waits for what nobody says. It lives on for a moment, with a process that was there before, since it can begin no other: of a
	// container that ends within a second of a refusal nobody can tell.
	{"processes", `cd /tmp; mkfifo go never; { read x <go; exec sleep 2; } & last=$!; (i=0; while [ $i -lt 5000 ]; do read x <never & i=$((i+1)); done); echo >go; wait $last; exit 3`, nil, "it had as many processes and threads as it may (limit 4096)"},
	{"time", `while :; do sleep 1; done`, []string{"--max-runtime", "2s"}, "ran longer than its maximum run time"},
}

// contains runs the hogs and sees that each fails for what it did, and that others run on.
func (m *machines) contains(more ...string) {
	for _, h := range hogs {
		m.T.Run(h.name, func(t *testing.T) {
			args := append([]string{"run", "--detach", "--name", h.name, "--grace", "2s"}, h.flags...)
			m.Exits(0, append(append(args, more...), "--", "sh", "-c", h.script)...)
			_, _ = m.Try("wait", h.name, "--timeout", "90s")
			view := m.Job(h.name)
			if view.State != "failed" || !strings.Contains(view.Reason, h.reason) {
				t.Errorf("it is %s: %s", view.State, view.Reason)
			}
			m.Exits(0, "delete", h.name)
		})
	}
	m.Exits(0, append(append([]string{"run", "--detach", "--name", "deaf", "--grace", "2s"}, more...), "--", "sh", "-c", `trap "" TERM; echo up; while :; do sleep 1; done`)...)
	m.WaitFor("the deaf one", 30*time.Second, func() bool { out, _ := m.Try("logs", "deaf"); return strings.Contains(out, "up") })
	m.Exits(0, "cancel", "deaf")
	m.Waits(1, "deaf")
	if task := m.Job("deaf").Tasks[0]; !strings.Contains(task.Reason, "did not end within its grace of 2s and was killed") {
		m.T.Errorf("of one that ignores SIGTERM: %s", task.Reason)
	}
	m.Exits(0, "delete", "deaf")
	if out := m.Exits(0, append(append([]string{"run", "--name", "honest"}, more...), "--", "echo", "lives")...); out != "lives\n" {
		m.T.Errorf("beside them: %q", out)
	}
	m.Exits(0, "delete", "honest")
}

func TestAProcessThatWantsTooMuchFailsForThat(t *testing.T) {
	m := start(t, 1, 1)
	m.contains()
	m.WaitFor("the node to be clear", 30*time.Second, func() bool {
		left, err := os.ReadDir(m.Path("n1/tasks"))
		return err == nil && len(left) == 0
	})
}

func TestAContainerThatWantsTooMuchFailsForThat(t *testing.T) {
	e := engine(t)
	m := start(t, 1, 0)
	m.Agent("n1", "--container-engine", e.Socket)
	m.WaitFor("the agent", 30*time.Second, func() bool { return m.Ready() == 1 })
	m.contains("--image", enginetest.Image)
	// With a root that it cannot write it still has its folders and /tmp.
	out := m.Exits(0, "run", "--name", "read-only", "--image", enginetest.Image, "--read-only-root", "--", "sh", "-c",
		"echo t >/tmp/t && echo m >/opt/ml/model/m && cat /tmp/t /opt/ml/model/m; touch /opt/x /x 2>/dev/null && echo wrote; grep NoNewPrivs /proc/self/status; grep CapBnd /proc/self/status; id -u; cat /proc/1/mounts | grep ' / '")
	if !strings.HasPrefix(out, "t\nm\n") || strings.Contains(out, "wrote") || !strings.Contains(out, "NoNewPrivs:\t1") || !strings.Contains(out, "CapBnd:\t0000000000000000") || !strings.Contains(out, "\n200000\n") {
		t.Errorf("read-only: %s", out)
	}
	m.Exits(0, "delete", "read-only")
}

func TestFoldersWithoutBottomHoldNobodyUp(t *testing.T) {
	m := start(t, 1, 1)
	script := "import os,time\nos.chdir('/opt/ml/checkpoints')\nfor i in range(20000):\n  os.mkdir('d'); os.chdir('d')\nprint('deep', flush=True)\ntime.sleep(60)"
	m.Exits(0, "run", "--detach", "--name", "deep", "--checkpoints", "--grace", "2s", "--", "/usr/bin/python3", "-c", script)
	m.Waits(143, "deep")
	if view := m.Job("deep"); !strings.Contains(view.Reason, "folders lie in one another") {
		t.Errorf("%s: %s", view.State, view.Reason)
	}
	m.Exits(0, "delete", "deep")
	m.WaitFor("its folders to go", 60*time.Second, func() bool {
		left, _ := filepath.Glob(m.Path("n1/tasks/*"))
		return len(left) == 0
	})
}
