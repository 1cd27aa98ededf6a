package driver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/batch"
	"github.com/clary-ml/clary/serving/batch/driver"
	"github.com/clary-ml/clary/serving/batch/record"
)

// task is a driver's folder, as an agent makes it.
type task struct {
	*testing.T
	base string
	env  map[string]string
	said bytes.Buffer
}

func newTask(t *testing.T, spec driver.Spec, address string, objects map[string]string) *task {
	t.Helper()
	base := t.TempDir()
	k := &task{T: t, base: base, env: map[string]string{
		"SAGEMAKER_BASE_DIR": base, "CLARY_SPEC": filepath.Join(base, "spec.json"), "CLARY_METRICS": filepath.Join(base, "metrics.jsonl"),
		"CLARY_HOSTS_SERVER": "elsewhere:1," + address, "CLARY_INDEX": "1",
	}}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	k.write("spec.json", string(text))
	for _, folder := range []string{driver.Inputs, driver.Outputs, "checkpoints", "output"} {
		if err := os.MkdirAll(filepath.Join(base, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range objects {
		k.write(filepath.Join(driver.Inputs, name), text)
	}
	return k
}

func (k *task) write(name, text string) {
	k.Helper()
	at := filepath.Join(k.base, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o644)); err != nil {
		k.Fatal(err)
	}
}

func (k *task) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(k.base, name))
	return string(text)
}

func (k *task) run(ctx context.Context) error {
	k.Helper()
	o, err := driver.OptionsFromEnv(func(name string) string { return k.env[name] })
	if err != nil {
		k.Fatal(err)
	}
	o.Out = &k.said
	return driver.Run(ctx, o)
}

func lines() driver.Spec {
	return driver.Spec{
		Shape: batch.Shape{Split: record.Line, ContentType: "text/csv"}, Timeout: quantity.Duration(10 * time.Second), Startup: quantity.Duration(10 * time.Second),
	}
}

// scorer answers every row in upper case, and refuses those that are bad.
func scorer(t *testing.T, requests *[]string) string {
	t.Helper()
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/execution-parameters":
			_, _ = w.Write([]byte(`{"BatchStrategy": "SINGLE_RECORD", "MaxConcurrentTransforms": 3}`))
		case strings.Contains(string(body), "bad"):
			http.Error(w, "a bad row", http.StatusBadRequest)
		default:
			mu.Lock()
			*requests = append(*requests, string(body))
			mu.Unlock()
			_, _ = w.Write(bytes.ToUpper(body))
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestADriverFeedsTheServerOfItsNumberAndTellsOfIt(t *testing.T) {
	var requests []string
	k := newTask(t, lines(), scorer(t, &requests), map[string]string{"a.csv": "x\ny\n", "deep/b.csv": "z\n"})
	if err := k.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b := k.read(driver.Outputs+"/a.csv.out"), k.read(driver.Outputs+"/deep/b.csv.out"); a != "X\nY\n" || b != "Z\n" {
		t.Errorf("outputs %q and %q", a, b)
	}
	if !strings.Contains(k.said.String(), "3 at a time, single, up to 6291456 bytes; answers: up to 268435456 bytes") || len(requests)-1 != 3 { // the ping is one too
		t.Errorf("%d requests, and it said %s", len(requests), k.said.String())
	}
	var last struct {
		Step, Total int64
		Metrics     map[string]float64
	}
	rows := strings.Split(strings.TrimSpace(k.read("metrics.jsonl")), "\n")
	if err := json.Unmarshal([]byte(rows[len(rows)-1]), &last); err != nil || last.Step != 6 || last.Total != 6 || last.Metrics["records"] != 3 || last.Metrics["objects"] != 2 {
		t.Errorf("its last row is %s, %v", rows[len(rows)-1], err)
	}
	if k.read("output/message")+k.read("output/failure") != "" {
		t.Error("it complains")
	}
}

// What the first attempt found holds for the next, whatever its server says.
func TestTheNextAttemptKeepsTheLimitsOfTheFirst(t *testing.T) {
	var requests []string
	address := scorer(t, &requests)
	k := newTask(t, lines(), address, map[string]string{"a.csv": "x\ny\n"})
	if err := k.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer plain.Close()
	k.env["CLARY_HOSTS_SERVER"] = "elsewhere:1," + strings.TrimPrefix(plain.URL, "http://")
	k.said.Reset()
	if err := k.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(k.said.String(), "3 at a time, single") || k.read(driver.Outputs+"/a.csv.out") != "X\nY\n" {
		t.Errorf("it said %s", k.said.String())
	}
}

func TestObjectsWithoutAnOutputAreAMessageAndNoFailure(t *testing.T) {
	var requests []string
	k := newTask(t, lines(), scorer(t, &requests), map[string]string{"a": "x\n", "b": "x\nbad\n", "c": "z\n"})
	if err := k.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := `1 of 3 objects have no output; b: record 2: POST /invocations: the server answered 400 Bad Request: "a bad row"`
	if got := k.read("output/message"); got != want {
		t.Errorf("the message is %q", got)
	}
	if k.read(driver.Outputs+"/c.out") != "Z\n" || k.read(driver.Outputs+"/b.out") != "" {
		t.Error("the outputs are others")
	}
}

func TestALongMessageSaysHowMuchIsMissing(t *testing.T) {
	var requests []string
	objects := map[string]string{"0": "x\n"}
	for i := range 26 {
		objects["object-"+string(rune('a'+i))] = "bad\n"
	}
	k := newTask(t, lines(), scorer(t, &requests), objects)
	if err := k.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := k.read("output/message"); len(got) > 1024 || !strings.HasPrefix(got, "26 of 27 objects") || !strings.HasSuffix(got, " more, see the log") {
		t.Errorf("the message is %q", got)
	}
}

func TestAnInstanceWithoutObjectsAsksNobody(t *testing.T) {
	k := newTask(t, lines(), "127.0.0.1:1", nil)
	if err := k.run(t.Context()); err != nil {
		t.Error(err)
	}
}

// A share that cannot be read is not one without objects.
func TestInputsThatCannotBeReadAreTriedAgain(t *testing.T) {
	for claim, spoil := range map[string]func(folder string) error{
		"it is gone": os.Remove,
		"a disk that went": func(folder string) error { // what is above it is no folder any more
			return errors.Join(os.RemoveAll(filepath.Dir(folder)), os.WriteFile(filepath.Dir(folder), nil, 0o644))
		},
	} {
		k := newTask(t, lines(), "127.0.0.1:1", nil)
		folder := filepath.Join(k.base, driver.Inputs)
		if err := spoil(folder); err != nil {
			t.Fatal(err)
		}
		if err := k.run(t.Context()); driver.ExitCode(err) != driver.ExitTryAgain || !strings.Contains(err.Error(), folder) || k.read("output/failure") == "" {
			t.Errorf("%s: it ends with %v, exit code %d", claim, err, driver.ExitCode(err))
		}
	}
}

func TestExitCodesSayWhetherToTryAgain(t *testing.T) {
	sick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "loading", http.StatusServiceUnavailable) }))
	defer sick.Close()
	hang := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.ReadAll(r.Body)
			<-r.Context().Done()
		}
	}))
	defer hang.Close()
	var dead atomic.Bool
	dying := httptest.NewUnstartedServer(nil)
	dying.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost || dead.Load() {
			dead.Store(true)
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_ = conn.Close()
			}
		}
	})
	dying.Start()
	defer dying.Close()
	for _, test := range []struct {
		claim, address   string
		startup, timeout time.Duration
		code             int
		says             string
	}{
		{"never healthy", sick.URL, 300 * time.Millisecond, time.Minute, driver.ExitFailed, "did not become healthy within 300ms"},
		{"hangs", hang.URL, time.Minute, 2 * time.Second, driver.ExitFailed, "did not answer within 2s"},
		{"is gone", dying.URL, time.Minute, time.Minute, driver.ExitTryAgain, "EOF"},
	} {
		spec := lines()
		spec.Startup, spec.Timeout = quantity.Duration(test.startup), quantity.Duration(test.timeout)
		k := newTask(t, spec, strings.TrimPrefix(test.address, "http://"), map[string]string{"a": "x\n"})
		err := k.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), test.says) || driver.ExitCode(err) != test.code {
			t.Errorf("%s: %v, exit code %d", test.claim, err, driver.ExitCode(err))
		}
		if !strings.Contains(k.read("output/failure"), test.says) {
			t.Errorf("%s: the failure file says %q", test.claim, k.read("output/failure"))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := newTask(t, lines(), strings.TrimPrefix(sick.URL, "http://"), map[string]string{"a": "x\n"})
	if err := k.run(ctx); driver.ExitCode(err) != driver.ExitTryAgain {
		t.Errorf("told to end it ends with %d: %v", driver.ExitCode(err), err)
	}
}

func TestAFullDiskIsTriedAgainAndABoundOfTheTasksOwnIsNot(t *testing.T) {
	full := os.WriteFile("/dev/full", []byte("x"), 0o600)
	if full == nil {
		t.Fatal("/dev/full took a byte")
	}
	if code := driver.ExitCode(fault.New(fault.Internal, "write the journal: %w", full)); code != driver.ExitTryAgain {
		t.Errorf("%v: exit code %d", full, code)
	}
	if code := driver.ExitCode(fault.New(fault.Internal, "write the journal: %w", syscall.EDQUOT)); code != driver.ExitFailed {
		t.Errorf("over its quota: exit code %d", code)
	}
}

// The task has memory for what the user said, and a server may want more.
func TestAServersLimitsAreHeldToTheDriversMemory(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/execution-parameters":
			_, _ = w.Write([]byte(`{"MaxPayloadInMB": 1024, "MaxConcurrentTransforms": 1024}`))
		case strings.HasPrefix(string(body), "large"):
			_, _ = w.Write(make([]byte, 7<<20))
		default:
			_, _ = w.Write(body)
		}
	}))
	defer server.Close()
	spec := lines()
	spec.Memory = driver.Memory(batch.Limits{Concurrent: 8, Payload: 6 << 20})
	k := newTask(t, spec, strings.TrimPrefix(server.URL, "http://"), map[string]string{"a": "x\n", "b": "large\n"})
	if err := k.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(k.said.String(), "8 at a time, multi, up to 6291456 bytes; answers: up to 6291456 bytes") {
		t.Errorf("it said %s", k.said.String())
	}
	if text := k.read("output/message"); k.read(driver.Outputs+"/a.out") != "x\n" || !strings.Contains(text, "b: record 1: ") || !strings.Contains(text, "more than 6291456 bytes: lower max_payload") {
		t.Errorf("its message is %q", text)
	}
}

func TestAnEnvironmentThatIsNotAnAgentsIsNamed(t *testing.T) {
	k := newTask(t, lines(), "127.0.0.1:1", nil)
	for name, value := range map[string]string{"CLARY_SPEC": "/nowhere", "CLARY_INDEX": "7", "CLARY_HOSTS_SERVER": ""} {
		_, err := driver.OptionsFromEnv(func(asked string) string {
			if asked == name {
				return value
			}
			return k.env[asked]
		})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%q: %v", name, value, err)
		}
	}
	spec := lines()
	spec.Port = 8080
	text, _ := json.Marshal(spec)
	k.write("spec.json", string(text))
	k.env["CLARY_HOSTS_SERVER"] = "elsewhere,10.0.0.7"
	if o, err := driver.OptionsFromEnv(func(name string) string { return k.env[name] }); err != nil || o.Address != "10.0.0.7:8080" {
		t.Errorf("a port of the server's own: %q, %v", o.Address, err)
	}
}
