package script_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver"
	"github.com/clary-ml/clary/serving/modelserver/script"
)

func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("skipped: there is no python3")
	return ""
}

// log is a writer that several may write to.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs a script of these lines.
func start(t *testing.T, text string, change ...func(*script.Options)) (*script.Program, *log, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "inference.py")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said := &log{}
	o := script.Options{Python: python(t), Script: path, ModelDir: dir, Out: said}
	for _, f := range change {
		f(&o)
	}
	p, err := script.Start(t.Context(), o)
	if err == nil {
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return p, said, err
}

func started(t *testing.T, text string, change ...func(*script.Options)) (*script.Program, *log) {
	t.Helper()
	p, said, err := start(t, text, change...)
	if err != nil {
		t.Fatal(err)
	}
	return p, said
}

func ask(t *testing.T, p *script.Program, body, contentType, accept string) (string, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answer, answerType, err := p.Invoke(ctx, []byte(body), contentType, accept)
	return string(answer), answerType, err
}

// until waits for an answer to x, as after a restart.
func until(t *testing.T, p *script.Program, want string) {
	t.Helper()
	for t.Context().Err() == nil {
		if got, _, err := ask(t, p, "x", "text/plain", "text/plain"); err == nil && got == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

const doubling = `
class Model:
    def predict(self, rows):
        return [2 * v for row in (rows.tolist() if hasattr(rows, "tolist") else rows) for v in row]
def model_fn(model_dir):
    print("loading", model_dir)
    return Model()
`

func TestTheUsualFunctionsReadAndWriteEveryForm(t *testing.T) {
	p, said := started(t, doubling)
	for _, c := range []struct{ body, contentType, accept, want, wantType string }{
		{"1\n2.5\n", "text/csv", "text/csv", "2.0\n5.0\n", "text/csv"},
		{`{"instances":[[1.0],[2.5]]}`, "application/json", "application/json", "[2.0, 5.0]", "application/json"},
		{`[[1.0]]`, "application/json; charset=utf-8", "*/*", "[2.0]", "application/json"},
		{"[1.0]\n{\"features\":[3.0]}\n", "application/jsonlines", "application/jsonlines", "2.0\n6.0\n", "application/jsonlines"},
	} {
		got, gotType, err := ask(t, p, c.body, c.contentType, c.accept)
		if err != nil || got != c.want || gotType != c.wantType {
			t.Errorf("%s: %q as %s, %v", c.contentType, got, gotType, err)
		}
	}
	if _, _, err := ask(t, p, "x", "image/png", "text/csv"); !errors.Is(err, modelserver.ErrUnsupported) || !strings.Contains(err.Error(), "input_fn") {
		t.Errorf("an unknown type: %v", err)
	}
	if _, _, err := ask(t, p, "[[1]", "application/json", ""); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "JSONDecodeError") {
		t.Errorf("broken JSON: %v", err)
	}
	if !strings.Contains(said.String(), "loading ") {
		t.Errorf("what the script wrote is lost: %s", said)
	}
}

func TestTheScriptsOwnFunctionsAreUsed(t *testing.T) {
	p, _ := started(t, `
def model_fn(model_dir, context):
    return context.system_properties["model_dir"] == model_dir
def input_fn(body, content_type):
    return body + content_type
def predict_fn(data, model, context=None):
    return [data, model]
def output_fn(prediction, accept):
    return repr(prediction) + accept, "text/x-repr"
`)
	if got, gotType, err := ask(t, p, "a", "text/x", "b"); err != nil || got != "['atext/x', True]b" || gotType != "text/x-repr" {
		t.Errorf("%q as %s, %v", got, gotType, err)
	}
	whole, _ := started(t, "def model_fn(d): return 3\ndef transform_fn(model, data, content_type, accept): return data * model, accept\n")
	if got, _, err := ask(t, whole, "ab", "application/octet-stream", "x/y"); err != nil || got != "ababab" {
		t.Errorf("transform_fn: %q, %v", got, err)
	}
}

func TestAScriptThatCannotStartIsTold(t *testing.T) {
	for _, c := range []struct {
		name, text, says string
		change           func(*script.Options)
	}{
		{"raises", "def model_fn(d): raise RuntimeError('no weights here')", "ended before it was ready: exit status 1\nit wrote:", nil},
		{"raises, its words", "def model_fn(d): raise RuntimeError('no weights here')", "RuntimeError: no weights here", nil},
		{"exits", "import sys\nsys.exit(7)", "ended before it was ready: exit status 7", nil},
		{"is killed", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "ended before it was ready: signal: killed", nil},
		{"is no Python", "def model_fn(:", "SyntaxError", nil},
		{"imports what is not there", "import nosuchmodule", "No module named 'nosuchmodule'", nil},
		{"has no model_fn", "x = 1", "the script has no model_fn(model_dir)", nil},
		{"is never ready", "import time\ndef model_fn(d): time.sleep(1000)", "was not ready within 300ms: model_fn hangs", func(o *script.Options) { o.StartWithin = 300 * time.Millisecond }},
		{"answers garbage", "import os\nos.write(4, b'x' * 100)\ndef model_fn(d): pass", "answered garbage, a frame of impossible length", nil},
		{"answers other garbage", "import os\nos.write(4, b'\\x04\\0\\0\\0\\0\\0\\0\\0rubb')\ndef model_fn(d): pass", "answered garbage, a header that is no JSON", nil},
		{"has no interpreter", "", "name an interpreter that is there", func(o *script.Options) { o.Python = "/nowhere/python" }},
		{"is not there", "", "name the file that has model_fn", func(o *script.Options) { o.Script += "x" }},
	} {
		change := c.change
		if change == nil {
			change = func(*script.Options) {}
		}
		if _, _, err := start(t, c.text, change); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("it %s: %v; want %q", c.name, err, c.says)
		}
	}
}

// mishaps answers a text with itself, or does what it says.
const mishaps = `
import os, sys, time
def model_fn(d): return None
def input_fn(body, content_type): return body
def predict_fn(data, model):
    if data == "hang": time.sleep(1000)
    if data == "exit": print("last words"); os._exit(3)
    if data == "garbage": os.write(4, b"z" * 64)
    if data == "raise": raise KeyError("nothing")
    if data == "value": raise ValueError("that is no row")
    return data
def output_fn(prediction, accept):
    return {"a": 1} if prediction == "dict" else prediction
`

// Whatever a script does at a request is told to who asked, and the next request is answered.
func TestMishapsAreToldAndOutlived(t *testing.T) {
	p, _ := started(t, mishaps)
	for _, c := range []struct {
		body, says string
		kind       fault.Kind
	}{
		{"raise", "the script's predict_fn failed: KeyError: 'nothing'", fault.Internal},
		{"value", "the script's predict_fn: ValueError: that is no row", fault.Invalid},
		{"dict", "output_fn gave a dict: it must give str or bytes", fault.Internal},
		{"exit", "the script's process ended while it was at a request: exit status 3\nit wrote:", fault.Internal},
		{"garbage", "answered garbage", fault.Internal},
	} {
		if _, _, err := ask(t, p, c.body, "text/plain", "text/plain"); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", c.body, err, c.says)
		}
		until(t, p, "x")
	}
}

func TestAHungScriptIsStartedAgain(t *testing.T) {
	p, said := started(t, mishaps)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := p.Invoke(ctx, []byte("hang"), "text/plain", ""); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "did not answer in time and was started again") {
		t.Errorf("%v", err)
	}
	until(t, p, "x")
	if !strings.Contains(said.String(), "the script is started again") {
		t.Errorf("nobody says so: %s", said)
	}
}

// While no process runs the program is not ready, and says why.
func TestReadinessFollowsTheProcess(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "broken")
	p, _ := started(t, fmt.Sprintf(`
import os
def model_fn(d):
    if os.path.exists(%q): raise RuntimeError("the weights are gone")
def transform_fn(model, data, content_type, accept):
    if data == "exit": os._exit(0)
    return data
`, flag))
	if err := p.Ready(t.Context()); err != nil {
		t.Errorf("at first: %v", err)
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(t, p, "exit", "text/plain", ""); err == nil || !strings.Contains(err.Error(), "exit status 0") {
		t.Errorf("it exits: %v", err)
	}
	for {
		if err := p.Ready(t.Context()); err != nil && strings.Contains(err.Error(), "the weights are gone") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := p.Invoke(ctx, []byte("x"), "text/plain", ""); !fault.Is(err, fault.Unready) {
		t.Errorf("asked meanwhile: %v", err)
	}
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	until(t, p, "x")
	if err := p.Ready(t.Context()); err != nil {
		t.Errorf("at last: %v", err)
	}
}

// Nothing that the script has started is left when it is closed, hung or not.
func TestCloseLeavesNothing(t *testing.T) {
	text := "import subprocess, os\nchild = subprocess.Popen(['sleep', '1000'])\ndef model_fn(d): return None\n" +
		"def transform_fn(m, data, c, a): return '%d %d' % (os.getpid(), child.pid)\n"
	dir := t.TempDir()
	path := filepath.Join(dir, "inference.py")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := script.Start(t.Context(), script.Options{Python: python(t), Script: path, ModelDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	answer, _, err := ask(t, p, "x", "text/plain", "")
	if err != nil {
		t.Fatal(err)
	}
	var parent, child int
	if _, err := fmt.Sscan(answer, &parent, &child); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{parent, child} {
		for syscall.Kill(pid, 0) == nil && !zombie(pid) {
			time.Sleep(time.Millisecond)
		}
	}
	if _, _, err := ask(t, p, "x", "text/plain", ""); !fault.Is(err, fault.Unready) {
		t.Errorf("after the end: %v", err)
	}
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// Several processes answer at once, each the request that it was given.
func TestProcessesShareTheRequests(t *testing.T) {
	p, _ := started(t, "import os\ndef model_fn(d): return None\ndef transform_fn(m, data, c, a): return '%d %s' % (os.getpid(), data)\n",
		func(o *script.Options) { o.Workers = 2 })
	var wait sync.WaitGroup
	var mu sync.Mutex
	pids := map[string]bool{}
	for i := range 200 {
		wait.Go(func() {
			got, _, err := ask(t, p, fmt.Sprint(i), "text/plain", "")
			pid, echo, _ := strings.Cut(got, " ")
			if err != nil || echo != fmt.Sprint(i) {
				t.Errorf("%d: %q, %v", i, got, err)
			}
			mu.Lock()
			pids[pid] = true
			mu.Unlock()
		})
	}
	wait.Wait()
	if len(pids) > 2 {
		t.Errorf("%d processes", len(pids))
	}
}
