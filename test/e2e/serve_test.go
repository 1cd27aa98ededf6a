package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/spec"
)

// packages are a virtual environment with these; where they cannot be had the test is skipped.
func (m *machines) packages(names ...string) (python string) {
	m.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	folder := m.Path("packages")
	if out, err := exec.CommandContext(ctx, "/usr/bin/python3", "-m", "venv", folder).CombinedOutput(); err != nil {
		m.T.Fatalf("%v: %s", err, out)
	}
	pip := exec.CommandContext(ctx, filepath.Join(folder, "bin", "pip"), append([]string{"install", "--quiet", "--disable-pip-version-check"}, names...)...)
	if out, err := pip.CombinedOutput(); err != nil {
		m.T.Skipf("skipped: %v cannot be had here: %v: %s", names, err, out)
	}
	return filepath.Join(folder, "bin", "python")
}

// served starts a model server on any free port and returns its address.
func (m *machines) served(name string, args ...string) string {
	m.T.Helper()
	m.Run(name, append([]string{"serve", "--port", "0"}, args...)...)
	const begin = " at http://"
	at := ""
	m.WaitFor("the model server", time.Minute, func() bool {
		_, rest, said := strings.Cut(m.read(name+".log"), begin)
		at, _, _ = strings.Cut(rest, "\n")
		return said && strings.Contains(rest, "\n")
	})
	return at
}

// sides is a stored model that says left where the first number is the greater.
func (m *machines) sides() string {
	m.T.Helper()
	folder := m.Path("sides")
	manifest := checkpoint.Manifest{
		Network: spec.Network{Input: []int{2}, Layers: []spec.Layer{{Dense: &spec.Dense{Units: 2}}}, Loss: spec.CrossEntropy},
		Data:    spec.Data{Format: spec.FormatCSV, Classes: []string{"left", "right"}},
	}
	if err := checkpoint.SaveModel(folder, manifest, []float32{1, 0, 0, 1, 0, 0}); err != nil {
		m.T.Fatal(err)
	}
	return folder
}

func (m *machines) python(python, script string, args ...string) string {
	m.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, append([]string{filepath.Join("testdata", script)}, args...)...).CombinedOutput()
	if err != nil {
		m.T.Fatalf("%s: %v\n%s\n%s", script, err, out, m.read("server.log"))
	}
	return string(out)
}

func TestTritonsClientsAreServed(t *testing.T) {
	m := none(t)
	python := m.packages("tritonclient[http,grpc]", "numpy")
	at := m.served("server", m.sides())
	out := m.python(python, "triton.py", at, "sides")
	for _, want := range []string{"rest answers", "rest with bytes answers", "rest with JSON answers", "grpc answers", "grpc refuses another model", "all alike"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said: %s", want, out)
		}
	}
	m.End("server")
	if log := m.read("server.log"); !strings.Contains(log, "ended: all requests are answered") {
		t.Errorf("its log: %s", log)
	}
}

// read is a file of the test's folder; one that is not there is empty.
func (m *machines) read(name string) string {
	text, err := os.ReadFile(m.Path(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.T.Fatal(err)
	}
	return string(text)
}

func TestAScikitLearnPickleIsServedByScript(t *testing.T) {
	m := none(t)
	python := m.packages("scikit-learn")
	var made struct {
		Instances   json.RawMessage
		Predictions json.RawMessage
	}
	if err := json.Unmarshal([]byte(m.python(python, "forest.py", m.Path("forest"))), &made); err != nil {
		t.Fatal(err)
	}
	at := m.served("server", m.Path("forest"), "--python", python, "--workers", "2")
	body := `{"instances":` + string(made.Instances) + "}"
	answer, err := http.Post("http://"+at+"/invocations", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || string(got) != string(made.Predictions) {
		t.Errorf("%s %s, %v; want %s", answer.Status, got, err, made.Predictions)
	}
	// Killed, the processes are there again; at the end none is.
	for _, pid := range m.PIDs("driver.py") {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	m.WaitFor("an answer by a new process", time.Minute, func() bool {
		answer, err := http.Post("http://"+at+"/invocations", "application/json", strings.NewReader(body))
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	m.End("server")
	if left := m.PIDs(m.Path("forest")); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

func TestAnONNXModelIsServed(t *testing.T) {
	m := none(t)
	python := m.packages("onnx", "onnxruntime", "numpy")
	var made struct {
		Library             string
		Rows, Probabilities [][]float64
		Labels              []string
	}
	if err := json.Unmarshal([]byte(m.python(python, "onnxmodel.py", m.Path("onnx"))), &made); err != nil {
		t.Fatal(err)
	}
	// The library's own tests, with the library.
	tests := exec.Command("go", "test", "-count=1", "-v", "../../serving/modelserver/onnx")
	tests.Env = append(os.Environ(), "CLARY_ONNXRUNTIME="+made.Library)
	if out, err := tests.CombinedOutput(); err != nil || strings.Contains(string(out), "SKIP") {
		t.Errorf("%v: %s", err, out)
	}
	at := m.served("server", m.Path("onnx"), "--onnxruntime", made.Library)
	rows, err := json.Marshal(map[string]any{"instances": made.Rows})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Post("http://"+at+"/invocations", "application/json", bytes.NewReader(rows))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var got struct {
		Predictions []struct {
			Label         string
			Probabilities []float64
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil || len(got.Predictions) != len(made.Rows) {
		t.Fatalf("%s, %d predictions, %v", answer.Status, len(got.Predictions), err)
	}
	for i, p := range got.Predictions {
		if p.Label != made.Labels[i] {
			t.Errorf("row %d: %q, and Python says %q", i, p.Label, made.Labels[i])
		}
		for j, v := range p.Probabilities {
			if math.Abs(v-made.Probabilities[i][j]) > 1e-5 {
				t.Errorf("row %d: %v, and Python says %v", i, p.Probabilities, made.Probabilities[i])
				break
			}
		}
	}
	m.End("server")
}
