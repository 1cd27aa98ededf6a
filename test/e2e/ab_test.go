package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// slowServer answers each request after a time that it is given.
const slowServer = `
import os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_GET(self): self.answer(b"ok")
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(float(sys.argv[1]))
        self.answer(b"1\n")
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
`

// Two variants under load: the one that scales gets replicas, and the test between them goes on when the
// leader is killed, ends with the faster one, and gives it the requests once it has replicas for them.
func TestTheFasterVariantTakesTheRequestsThoughTheLeaderIsKilled(t *testing.T) {
	m := start(t, 3, 1)
	program := func(seconds string) string {
		return fmt.Sprintf(`{"command": ["python3", "-c", %q, %q]}`, slowServer, seconds)
	}
	spec := m.File("shop.yaml", fmt.Sprintf(`
kind: endpoint
name: shop
spec:
  variants:
    - {name: blue, program: %s, resources: {cores: 0.1}, scaling: {min: 1, max: 3, policies: [{metric: concurrency, target: 1}]}}
    - {name: green, program: %s, resources: {cores: 0.1}}
`, program("0.2"), program("0.05")))
	m.Clary("deploy", "-f", spec, "--timeout", "60s")
	m.Clary("ab", "shop", "--metric", "latency", "--between", "blue,green", "--promote", "--least", "300", "--detach")
	load := make(chan string, 1)
	go func() {
		out, _ := m.Try("invoke", "shop", "--data", "1,2", "--during", "45s", "--parallel", "16", "--rate", "40", "-o", "json")
		load <- out
	}()
	type test struct {
		Call  string `json:"call"`
		Ended string `json:"ended"`
		Says  string `json:"result"`
		A     struct{ N int64 }
		High  float64 `json:"high"`
	}
	var shown test
	m.WaitFor("counts of the test", 30*time.Second, func() bool {
		m.JSON(&shown, "ab", "shop", "-o", "json")
		return shown.A.N > 0
	})
	leader := m.Leader()
	m.Kill(leader)
	m.WaitFor("its answer", 90*time.Second, func() bool {
		out, err := m.Try("ab", "shop", "-o", "json")
		return err == nil && strings.Contains(out, `"ended"`)
	})
	shown = test{}
	m.JSON(&shown, "ab", "shop", "-o", "json")
	if shown.Call != "promote" || !strings.Contains(shown.Says, "promote green: its latency is") || shown.High > -0.3 {
		t.Errorf("the answer is %+v", shown)
	}
	var status struct {
		Fleets []struct {
			Variant  string
			Traffic  float64
			Replicas int
		}
	}
	m.JSON(&status, "endpoint", "status", "shop", "-o", "json")
	for _, fleet := range status.Fleets {
		if want := map[string]float64{"blue": 0, "green": 1}[fleet.Variant]; fleet.Traffic != want || fleet.Replicas < 2 {
			t.Errorf("%+v", fleet)
		}
	}
	if out := <-load; !strings.Contains(out, `"green": `) {
		t.Errorf("the load: %s", out)
	}
	m.Again(leader)
	m.Clary("endpoint", "delete", "shop")
}
