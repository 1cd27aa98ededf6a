package e2e

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// queue makes a queue as a coordinator would, also before anybody has logged in.
func (m *machines) queue(name string, set ...func(*cluster.Queue)) {
	m.T.Helper()
	own, err := pki.LoadCredentials(filepath.Join(m.Path("s1"), "tls"))
	if err != nil {
		m.T.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+m.Address[m.Leader()], grpc.WithTransportCredentials(tlsWith(own)))
	if err != nil {
		m.T.Fatal(err)
	}
	defer conn.Close()
	change := command.Change{Queue: &cluster.Queue{Name: name, Weight: 1}}
	for _, set := range set {
		set(change.Queue)
	}
	batch, err := command.Encode(time.Now().UnixNano(), command.Record{Changes: []command.Change{change}})
	if err != nil {
		m.T.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := claryv1.NewPeerClient(conn).Propose(ctx, &claryv1.ProposeRequest{Batch: batch})
	if err != nil {
		m.T.Fatal(err)
	}
	results, err := command.DecodeResults(answer.GetResults())
	if err != nil || len(results) != 1 || results[0].Err != nil {
		m.T.Fatalf("%v, %v", results, err)
	}
}

// secret sets one of a queue.
func (m *machines) secret(queue, name, value string) {
	m.T.Helper()
	command := exec.Command(m.Binary, "secret", "set", name, "--queue", queue)
	command.Env, command.Stdin = m.Env, strings.NewReader(value)
	if out, err := command.CombinedOutput(); err != nil {
		m.T.Fatalf("secret set: %v: %s", err, out)
	}
}

// listening are the ports of loopback on which the cluster's own processes wait.
func (m *machines) listening() []string {
	var ports []string
	for _, name := range []string{"s1", "n1"} {
		for i, argument := range m.Args[name] {
			if strings.HasSuffix(argument, "listen") {
				_, port, _ := net.SplitHostPort(m.Args[name][i+1])
				ports = append(ports, port)
			}
		}
	}
	return ports
}

const pry = `import os, glob, signal, socket, ssl
def tries(what, do):
    try:
        do()
        print("COULD", what)
    except Exception as e:
        print("could not", what, type(e).__name__)
for path in @PATHS@:
    tries("read " + path, lambda: open(path, "rb").read(1))
    tries("list " + path, lambda: os.listdir(path))
for process in glob.glob("/proc/[0-9]*"):
    pid = int(process[6:])
    if os.stat(process).st_uid == os.getuid():
        continue
    for part in ("environ", "mem", "root/opt/ml/model/weights", "cwd", "fd"):
        tries("see %s of another" % part, lambda: os.listdir(process + "/" + part) if os.path.isdir(process + "/" + part) else open(process + "/" + part, "rb").read(1))
for pid in @PIDS@:
    tries("signal another", lambda: os.kill(pid, 0))
    tries("see /proc of another", lambda: os.stat("/proc/%d" % pid))
    tries("read environ of another", lambda: open("/proc/%d/environ" % pid).read())
    tries("read root of another", lambda: os.listdir("/proc/%d/root/opt/ml" % pid))
for port in @PORTS@:
    def speak(hello):
        s = socket.create_connection(("127.0.0.1", port), 5)
        c = ssl._create_unverified_context()
        c.set_alpn_protocols(["h2", "http/1.1"])
        s = c.wrap_socket(s)
        s.sendall(hello)
        answer = s.recv(4096)
        if not answer:
            raise EOFError()
        print("ANSWER", port, answer[:15].decode("latin1"), b"AccessDenied" in answer or b"403" in answer[:20])
        if answer.startswith(b"HTTP/1.1 2"):
            return
        raise PermissionError()
    tries("speak HTTP to the cluster", lambda: speak(b"GET /clary/ HTTP/1.1\r\nHost: x\r\n\r\n"))
print("done")
`

func TestAQueueReachesNothingOfAnother(t *testing.T) {
	m := start(t, 1, 1)
	m.queue("red")
	m.queue("blue")
	m.secret("red", "password", "correct-horse")
	m.Exits(0, "run", "-d", "--queue", "red", "--name", "victim", "--checkpoints", "--secret", "password=PASSWORD", "--secret", "password:word", "--", "sh", "-c",
		"echo w >/opt/ml/model/weights; echo c >/opt/ml/checkpoints/c; echo ready; sleep 600")
	m.WaitFor("the victim", 30*time.Second, func() bool { out, _ := m.Try("logs", "victim"); return strings.Contains(out, "ready") })
	folder := m.Path("n1/tasks/victim~main~worker-0.1")
	paths := []string{
		folder, folder + "/ml/model/weights", folder + "/shim.json", folder + "/start.json", folder + "/stdout.log", m.Path("n1/objects.json"), m.Path("n1/ledger.db"),
		m.Path("n1/tls/key.pem"), m.Path("s1"), m.Path("s1/objects/clary/jobs/victim/checkpoints/1/worker-0/c"), "/run/secrets/word",
	}
	paths = append(paths, m.InMemory()...)
	if len(m.InMemory()) == 0 {
		t.Error("the victim's secret is nowhere")
	}
	var pids []string
	for _, pid := range m.taskPids("victim") {
		pids = append(pids, fmt.Sprint(pid))
	}
	if len(pids) == 0 {
		t.Fatal("the victim does not run")
	}
	list := func(items []string) string { return "[" + strings.Join(items, ",") + "]" }
	quoted := make([]string, len(paths))
	for i, path := range paths {
		quoted[i] = fmt.Sprintf("%q", path)
	}
	script := strings.NewReplacer("@PATHS@", list(quoted), "@PIDS@", list(pids), "@PORTS@", list(m.listening())).Replace(pry)
	out := m.Exits(0, "run", "--queue", "blue", "--name", "thief", "--", "/usr/bin/python3", "-c", script)
	if strings.Contains(out, "COULD") || !strings.Contains(out, "done") || strings.Count(out, "could not") < 20 {
		t.Errorf("the thief said\n%s", out)
	}
	t.Log(out)
	if !strings.Contains(out, "ANSWER") {
		t.Errorf("no port was spoken to:\n%s", out)
	}
	// A job of another queue is not given the secret.
	m.refuses(nil, []string{"run", "--queue", "blue", "--secret", "password=P", "--", "true"}, `there is no secret "password" in queue blue`)
	m.Exits(0, "cancel", "victim")
	m.Waits(1, "victim")
}
