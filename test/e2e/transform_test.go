package e2e

import (
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/test/testbed"
)

// scorer is a server by the contract, of nothing but Python's own library: it scores a row by the
// sum of its columns times what its model says. Its first argument is how it misbehaves.
const scorer = `
import http.server, json, os, sys, time
base = os.environ["SAGEMAKER_BASE_DIR"]
fault = sys.argv[1] if len(sys.argv) > 1 else ""
if fault == "exits":
    print("loading the model"); print("there is no such model", file=sys.stderr); sys.exit(3)
scale = float(open(base + "/model/scale.txt").read())
try:
    open(base + "/model/scale.txt", "w"); print("the model can be written")
except OSError:
    pass
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, code, text):
        self.send_response(code); self.send_header("Content-Length", str(len(text))); self.end_headers(); self.wfile.write(text)
    def do_GET(self):
        if self.path == "/ping": return self.answer(503 if fault == "sick" else 200, b"")
        if self.path == "/execution-parameters": return self.answer(200, b'{"MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1}')
        self.answer(404, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if fault == "hangs": time.sleep(60)
        if fault == "garbage": self.wfile.write(b"<<<>>>\r\n\r\n"); self.close_connection = True; return
        time.sleep(float(os.environ.get("PAUSE", "0")))
        try:
            rows = [sum(float(x) for x in line.split(",")) * scale for line in body.decode().split("\n")]
        except ValueError as e:
            return self.answer(400, str(e).encode())
        self.answer(200, "\n".join("%g" % row for row in rows).encode())
    def log_message(self, *args): pass
print("told", json.dumps({k: v for k, v in os.environ.items() if k.startswith("SAGEMAKER_BATCH") or k.startswith("SAGEMAKER_MAX") or k == "TRAINING_JOB_NAME"}, sort_keys=True), flush=True)
http.server.ThreadingHTTPServer(("", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
`

// scored are objects, and what a scorer of scale 2 makes of them, joined with their first column.
func scored(objects, rows int) (in, out map[string]string) {
	in, out = map[string]string{}, map[string]string{}
	for o := range objects {
		var text, want strings.Builder
		for r := range rows {
			fmt.Fprintf(&text, "id-%d-%d,%d,%d\n", o, r, o, r)
			fmt.Fprintf(&want, "id-%d-%d,%g\n", o, r, float64(o+r)*2)
		}
		name := fmt.Sprintf("%d/part.csv", o)
		in[name], out[name+".out"] = text.String(), want.String()
	}
	return in, out
}

func (m *machines) transform(name, rows, fault string, more ...string) {
	m.T.Helper()
	args := append([]string{
		"transform", "--name", name, "--model", m.Path("scale.txt"), "--input", rows, "--output", "s3://scored/" + name + "/", "--split", "line",
		"--content-type", "text/csv", "--input-filter", "$[1:]", "--join", "input", "--output-filter", "$[0,-1]", "--script", m.Path("serve.py"), "--cores", "0.5", "--memory", "256MiB", "--detach",
	}, more...)
	if fault != "" {
		args = append(args, "--", fault)
	}
	m.Clary(args...)
}

func TestWhateverIsKilledATransformLeavesTheBytesOfAnUndisturbedRun(t *testing.T) {
	m := start(t, 1, 2)
	m.File("serve.py", scorer)
	m.File("scale.txt", "2")
	in, want := scored(6, 1000)
	rows := m.tree("rows", in)
	slow := []string{"--instances", "2", "--max-payload", "1KiB", "--env", "PAUSE=0.2", "--max-runtime", "5m"}
	signal := func(role string) func(string) {
		return func(name string) {
			for _, pid := range m.PIDs("CLARY_TASK=" + name + "/main/" + role) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	for _, test := range []struct {
		name     string
		disturb  func(name string)
		attempts int
	}{
		{"undisturbed", func(string) {}, 1},
		{"driver", signal("driver-1"), 2},
		{"server", signal("server-0"), 2},
		{"agent", func(string) { m.Kill("n1"); m.Again("n1") }, 1},
		{"shims", func(string) {
			for _, pid := range m.PIDs("clary-shim") {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			m.transform(test.name, rows, "", slow...)
			// Both drivers have parts of their journals in the store by then.
			m.WaitFor("some of "+test.name, time.Minute, func() bool {
				kept, err := m.Try("ls", "-r", "s3://clary/jobs/"+test.name+"/checkpoints/1/")
				return err == nil && strings.Contains(kept, "driver-0/00000000.part") && strings.Contains(kept, "driver-1/00000000.part")
			})
			test.disturb(test.name)
			m.Waits(0, test.name)
			if got := m.fetched("s3://scored/" + test.name + "/"); !maps.Equal(got, want) {
				t.Errorf("it left %d outputs, or other bytes", len(got))
			}
			view := m.Job(test.name)
			if view.Attempt != test.attempts {
				t.Errorf("it took %d attempts, want %d", view.Attempt, test.attempts)
			}
			if sum := records(view); sum != 6000 {
				t.Errorf("it tells of %g records", sum)
			}
			if said := m.Clary("logs", test.name); test.attempts > 1 && !strings.Contains(said, "an earlier run has done ") {
				t.Errorf("nothing was taken over:\n%s", said)
			}
		})
	}
	if told := m.Clary("logs", "undisturbed"); !strings.Contains(told, `told {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}`) || strings.Contains(told, "can be written") {
		t.Errorf("the servers said\n%s", told)
	}
	if told := m.Clary("logs", "driver"); !strings.Contains(told, "2 at a time, multi, up to 1024 bytes") {
		t.Errorf("the drivers said\n%s", told)
	}
}

// records are those that a transform's tasks tell of.
func records(job testbed.Job) float64 {
	sum := 0.0
	for _, task := range job.Tasks {
		if task.Attempt < job.Attempt {
			continue
		}
		sum += task.Metrics["records"]
	}
	return sum
}

func TestAServerThatIsOfNoUseEndsItsTransformAndIsNamed(t *testing.T) {
	m := start(t, 1, 1)
	m.File("serve.py", scorer)
	m.Clary("cp", m.File("scale.txt", "2"), "s3://scored/") // so that there is such a bucket
	in, want := scored(3, 20)
	rows := m.tree("rows", in)
	for _, test := range []struct {
		fault string
		says  []string
	}{
		{"exits", []string{"server-0 failed", "exit code 3", "the log of server-0 ends: ", "loading the model", "there is no such model"}},
		{"sick", []string{"driver-0 failed", "the server did not become healthy within 3s", "503 Service Unavailable", "the log of server-0 ends: told "}},
		{"hangs", []string{"driver-0 failed", "the server did not answer within 1s; it was tried 2 times", "the log of server-0 ends: told "}},
		{"garbage", []string{"driver-0 failed", "malformed HTTP"}},
	} {
		t.Run(test.fault, func(t *testing.T) {
			m.transform(test.fault, rows, test.fault, "--startup-timeout", "3s", "--invocation-timeout", "1s", "--invocation-retries", "1")
			m.Try("wait", test.fault, "--timeout", "1m") //nolint:errcheck // its end is looked at
			view := m.Job(test.fault)
			if view.State != "failed" || view.Attempt != 1 {
				t.Errorf("it is %s after attempt %d", view.State, view.Attempt)
			}
			for _, text := range test.says {
				if !strings.Contains(view.Reason, text) {
					t.Errorf("the reason %q\ndoes not say %q", view.Reason, text)
				}
			}
			if left := m.fetched("s3://scored/" + test.fault + "/"); len(left) > 0 {
				t.Errorf("it left %d outputs", len(left))
			}
		})
	}
	t.Run("a bad row", func(t *testing.T) {
		in["1/part.csv"] = strings.Replace(in["1/part.csv"], "id-1-7,1,7", "id-1-7,1,seven", 1)
		delete(want, "1/part.csv.out")
		m.transform("bad", m.tree("bad-rows", in), "", "--strategy", "single")
		m.Try("wait", "bad", "--timeout", "1m") //nolint:errcheck // its end is looked at
		view := m.Job("bad")
		if view.State != "failed" || !strings.Contains(view.Reason, "1 of 3 objects have no output; 1/part.csv: record 8: ") || !strings.Contains(view.Reason, "could not convert") {
			t.Errorf("it is %s: %s", view.State, view.Reason)
		}
		if got := m.fetched("s3://scored/bad/"); !maps.Equal(got, want) {
			t.Errorf("it left %q", got)
		}
	})
}
