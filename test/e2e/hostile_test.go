package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// says runs a script as a job and returns what it wrote.
func (m *machines) says(name, script string) string {
	m.T.Helper()
	out, _ := m.Try("run", "--name", name, "--", "sh", "-c", script)
	return out
}

func TestAHostileTaskIsContainedAndItIsSaidWhatHappened(t *testing.T) {
	m := start(t, 1, 1)
	host := filepath.Join("/var/tmp", "clary-hostile-"+filepath.Base(m.Dir))
	if err := os.WriteFile(host, []byte("hush"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(host) })

	// One that reads what is not its own: the node's folders and keys, others' processes.
	said := m.says("spy", `id -u; pwd
for f in `+m.Dir+` `+host+` /etc/shadow /run/docker.sock /proc/1/environ; do cat $f >/dev/null 2>&1 && echo read $f; done
ls `+m.Dir+` 2>/dev/null
for p in /proc/[0-9]*; do tr "\0" " " <$p/cmdline 2>/dev/null; done | grep -c "clary (server|agent)"
touch /etc/x /usr/x /opt/x 2>/dev/null && echo wrote
echo done`)
	if !strings.Contains(said, "done") || strings.Contains(said, "read ") || strings.Contains(said, "wrote") || strings.Contains(said, "s1") || strings.HasPrefix(said, "0\n") {
		t.Errorf("the spy said\n%s", said)
	}

	// One that leaves daemons behind, in a session of their own.
	m.says("daemons", "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' & (setsid setsid sleep 600 &) ; echo gone")
	if left := m.taskPids("daemons"); len(left) > 0 {
		t.Errorf("daemons %v outlive their task", left)
	}

	// A fork bomb, while another job runs on.
	m.Clary("run", "-d", "--name", "bomb", "--memory", "2GiB", "--", "sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 600")
	m.WaitFor("the bomb", 20*time.Second, func() bool { return m.Job("bomb").State == "running" })
	if out := m.says("beside", "echo lives"); out != "lives\n" {
		t.Errorf("beside a fork bomb: %q", out)
	}
	m.Clary("cancel", "bomb")
	_, _ = m.Try("wait", "bomb", "--timeout", "1m")
	if left := m.taskPids("bomb"); len(left) > 0 {
		t.Errorf("%d processes of the bomb are left", len(left))
	}

	// One that leaves links and pipes for an agent that is root.
	m.says("links", "ln -s /etc/shadow /opt/ml/model/weights; mkfifo /opt/ml/checkpoints/pipe; rm -f /opt/ml/output/failure; ln -s "+host+" /opt/ml/output/failure; exit 3")
	if view := m.Job("links"); view.State != "failed" || strings.Contains(view.Reason, "hush") {
		t.Errorf("links ended as %+v", view)
	}
	m.refuses(nil, []string{"run", "--name", "packed", "--", "sh", "-c", "ln -s /etc/shadow /opt/ml/model/weights"}, "links to /etc/shadow, outside of the folder")
}
