package supervisor_test

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/device"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// beServer is a task that answers with the status that a file has, once it has one.
func beServer(file string) {
	fmt.Println("loading the model")
	for {
		if _, err := os.Stat(file); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(file)
		status, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "asked for "+r.URL.Path)
	})
	fmt.Println(http.ListenAndServe("127.0.0.1:"+os.Getenv("SAGEMAKER_BIND_TO_PORT"), handler))
}

// served is an assignment of a server, and the file that has what it answers.
func (b *bench) served(p cluster.Probe) (ledger.Assignment, func(status string)) {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.dir, "answer")
	return script("", func(a *ledger.Assignment) {
			a.Program.Command, a.Program.Contract, a.Program.Probe = []string{os.Args[0]}, cluster.ContractServing, &p
			a.Program.Env = map[string]string{"CLARY_TEST_SERVER": file}
			a.Task.Allocation.Resources.Ports = []int32{int32(port)}
		}), func(status string) {
			b.Helper()
			if err := os.WriteFile(file+".new", []byte(status), 0o600); err != nil {
				b.Fatal(err)
			}
			if err := os.Rename(file+".new", file); err != nil {
				b.Fatal(err)
			}
		}
}

func healthy(held map[string]cluster.TaskStatus) bool { return held[worker].Healthy != 0 }

func TestATaskIsHealthyWhileItServesAndItsAgentSaysSoAtOnce(t *testing.T) {
	b := newBench(t, nil)
	assignment, answer := b.served(cluster.Probe{Path: "/v2/health/ready", Every: 20 * time.Millisecond})
	b.run(assignment)
	b.becomes(worker, cluster.TaskRunning)
	answer("503")
	answer("200")
	b.until("it is healthy", healthy)
	answer("500")
	b.until("it is not", func(held map[string]cluster.TaskStatus) bool { return !healthy(held) })
	answer("200")
	b.until("it is again", healthy)
	b.run(script("", func(a *ledger.Assignment) { *a = assignment; a.Stop = true }))
	if status := b.ended(worker); status.State != cluster.TaskStopped || status.Healthy != 0 {
		t.Errorf("it ended as %+v", status)
	}
}

func TestATaskThatNeverServesFailsWithWhatItSaid(t *testing.T) {
	b := newBench(t, nil)
	assignment, answer := b.served(cluster.Probe{Startup: 300 * time.Millisecond})
	answer("503")
	b.run(assignment)
	status := b.ended(worker)
	for _, want := range []string{"within 300ms", "answered 503 Service Unavailable: asked for /ping", "its log ends: loading the model"} {
		if status.State != cluster.TaskFailed || !strings.Contains(status.Reason, want) {
			t.Errorf("it ended as %+v, want %q", status, want)
		}
	}
}

func TestATaskThatServesNoMoreFailsIfItsProbeSaysSo(t *testing.T) {
	b := newBench(t, nil)
	assignment, answer := b.served(cluster.Probe{Every: 10 * time.Millisecond, Failures: 3})
	answer("200")
	b.run(assignment)
	b.until("it is healthy", healthy)
	answer("0")
	if status := b.ended(worker); status.State != cluster.TaskFailed || !strings.Contains(status.Reason, "3 times in a row") || status.Healthy != 0 {
		t.Errorf("it ended as %+v", status)
	}
}

func TestATaskStaysHealthyWhileItsAgentIsStartedAgain(t *testing.T) {
	b := newBench(t, nil)
	assignment, answer := b.served(cluster.Probe{Every: 20 * time.Millisecond})
	answer("200")
	b.run(assignment)
	var since int64
	b.until("it is healthy", func(held map[string]cluster.TaskStatus) bool {
		since = held[worker].Healthy
		return since != 0
	})
	if err := b.agent.close(); err != nil {
		t.Fatal(err)
	}
	b.open(nil)
	if held, _ := b.agent.Held(); len(held) != 1 || held[0].Status.Healthy != since {
		t.Errorf("the next agent begins by saying %+v: it was healthy since %d", held, since)
	}
	answer("500")
	b.until("it is not", func(held map[string]cluster.TaskStatus) bool { return !healthy(held) })
}

func TestAConnectionReachesTheTaskThatItNames(t *testing.T) {
	b := newBench(t, nil)
	assignment, answer := b.served(cluster.Probe{})
	if _, _, err := b.agent.Reach(t.Context(), worker); !fault.Is(err, fault.NotFound) {
		t.Errorf("an unknown task is reached: %v", err)
	}
	answer("200")
	b.run(assignment)
	b.until("it is healthy", healthy)
	conn, over, err := b.agent.Reach(t.Context(), worker)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /models HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(text), "asked for /models") {
		t.Errorf("it answered %q, %v", text, err)
	}
	b.run(script("", func(a *ledger.Assignment) { *a = assignment; a.Stop = true }))
	b.ended(worker)
	<-over
	if _, _, err := b.agent.Reach(t.Context(), worker); !fault.Is(err, fault.Unready) {
		t.Errorf("an ended task is reached: %v", err)
	}
}

func TestNoConnectionReachesATaskThatIsNoServer(t *testing.T) {
	b := newBench(t, nil)
	b.run(script("exec sleep 100", func(a *ledger.Assignment) { a.Task.Allocation.Resources.Ports = []int32{1} }))
	b.until("it runs", func(held map[string]cluster.TaskStatus) bool { return held[worker].State == cluster.TaskRunning })
	if _, _, err := b.agent.Reach(t.Context(), worker); !fault.Is(err, fault.Invalid) {
		t.Errorf("it is reached: %v", err)
	}
	b.run(script("", func(a *ledger.Assignment) { a.Stop = true }))
	b.ended(worker)
}

func TestAServerIsToldToBeAsBusyAsItsGPUsAre(t *testing.T) {
	b := newBench(t, func(c *supervisor.Config) {
		c.Gauge = func(uuid string) map[string]float64 {
			return map[string]map[string]float64{"GPU-a": {device.Utilization: 0.5, device.Power: 90}, "GPU-b": {device.Utilization: 0.9}, "GPU-c": {device.Power: 90}}[uuid]
		}
	})
	assignment, answer := b.served(cluster.Probe{})
	assignment.Task.Allocation.Resources.Devices = []string{"GPU-a", "GPU-b", "GPU-c"}
	answer("200")
	b.run(assignment)
	b.until("its use is told", func(held map[string]cluster.TaskStatus) bool {
		use, told := held[worker].Progress.Metrics[cluster.GPUUse]
		if told && math.Abs(use-70) > 1e-9 {
			t.Errorf("it uses %v %% of its GPUs", use)
		}
		return told
	})
	b.run(script("", func(a *ledger.Assignment) { *a = assignment; a.Stop = true }))
	b.ended(worker)
}
