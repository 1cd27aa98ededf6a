package models

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/spec"
)

// storedModel passes its input on: the class is the greater feature.
func storedModel(t *testing.T, folder string) {
	t.Helper()
	manifest := checkpoint.Manifest{
		Network: spec.Network{Input: []int{2}, Layers: []spec.Layer{{Dense: &spec.Dense{Units: 2}}}, Loss: spec.CrossEntropy},
		Data:    spec.Data{Format: spec.FormatCSV, Classes: []string{"left", "right"}},
	}
	if err := checkpoint.SaveModel(folder, manifest, []float32{1, 0, 0, 1, 0, 0}); err != nil {
		t.Fatal(err)
	}
}

var servingAt = regexp.MustCompile(`at (http://[0-9.:]+)`)

// serving runs clary serve and returns where; stop ends it as SIGTERM does.
func serving(t *testing.T, env map[string]string, args ...string) (url string, stop func() error) {
	t.Helper()
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	reader, writer := io.Pipe()
	a := app{submit.For(&shell.App{In: strings.NewReader(""), Out: said, Err: writer, Getenv: func(name string) string { return env[name] }, Format: "table"})}
	command := a.serveCommand()
	ctx, cancel := context.WithCancel(context.Background())
	command.SetArgs(args)
	command.SilenceUsage = true
	ended := make(chan error, 1)
	go func() {
		err := command.ExecuteContext(ctx)
		_ = writer.CloseWithError(io.EOF)
		ended <- err
	}()
	lines := bufio.NewScanner(reader)
	for lines.Scan() {
		if found := servingAt.FindStringSubmatch(lines.Text()); found != nil {
			url = found[1]
			break
		}
	}
	if url == "" {
		cancel()
		t.Fatalf("it serves nothing: %v", <-ended)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, reader)
	}()
	return url, func() error {
		cancel()
		<-drained
		return <-ended
	}
}

func ask(t *testing.T, url, body string) string {
	t.Helper()
	answer, err := http.Post(url+"/invocations", "text/csv", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAModelIsServedHere(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "model")
	storedModel(t, folder)
	url, stop := serving(t, nil, folder, "--port", "0")
	if got := ask(t, url, "5,1\n1,5\n"); !strings.HasPrefix(got, "left,0.98") || !strings.Contains(got, "\nright,0.0") {
		t.Errorf("%q", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Without a name the model lies where the contract of a container says.
func TestAModelIsServedByTheContract(t *testing.T) {
	base := t.TempDir()
	storedModel(t, filepath.Join(base, "model"))
	url, stop := serving(t, map[string]string{"SAGEMAKER_BASE_DIR": base, "SAGEMAKER_BIND_TO_PORT": "0", "CLARY_LISTEN": "127.0.0.1"})
	if got := ask(t, url, "5,1\n"); !strings.HasPrefix(got, "left,") {
		t.Errorf("%q", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeServedIsSaid(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "model")
	storedModel(t, folder)
	broken := filepath.Join(t.TempDir(), "broken")
	storedModel(t, broken)
	if err := os.WriteFile(filepath.Join(broken, "weights.bin"), []byte("12345678"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		env  map[string]string
		says string
	}{
		{[]string{t.TempDir()}, nil, "has no manifest.json, no code/inference.py and no *.onnx"},
		{[]string{filepath.Join("..", "..", "..", "..", "serving", "modelserver", "onnx", "testdata", "classifier.onnx"), "--onnxruntime", "/nowhere/lib.so"}, nil, "onnxruntime is not here"},
		{[]string{broken}, nil, "does not match the checksum"},
		{[]string{filepath.Join(folder, "weights.bin")}, nil, "not a model.tar.gz"},
		{[]string{folder, "--port", "70000"}, nil, "give 0 to 65535"},
		{[]string{folder, "--max-payload", "much"}, nil, "--max-payload"},
		{[]string{folder, "--max-batch", "-1", "--port", "0"}, nil, "negative"},
		{[]string{folder}, map[string]string{"SAGEMAKER_BIND_TO_PORT": "http"}, "SAGEMAKER_BIND_TO_PORT"},
		{nil, map[string]string{"SAGEMAKER_BASE_DIR": "/nowhere"}, "/nowhere/model"},
	} {
		a := app{submit.For(&shell.App{Err: io.Discard, Out: io.Discard, Getenv: func(name string) string { return c.env[name] }, Format: "table"})}
		command := a.serveCommand()
		command.SetArgs(c.args)
		command.SilenceUsage, command.SilenceErrors = true, true
		if err := command.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v; want %q", c.args, err, c.says)
		}
	}
}

// A model that was not trained here brings its own script along.
func TestAModelIsServedByItsScript(t *testing.T) {
	python := "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skip("skipped: there is no " + python)
	}
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "code"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := "import os\ndef model_fn(d): return open(os.path.join(d, 'word')).read()\n" +
		"def transform_fn(model, data, content_type, accept):\n    if data == 'bad': raise ValueError('no row')\n    return model + data, 'text/x'\n"
	for name, body := range map[string]string{"word": "hello ", usualScript: text} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	url, stop := serving(t, nil, folder, "--port", "0", "--python", python)
	if got := ask(t, url, "world"); got != "hello world" {
		t.Errorf("%q", got)
	}
	if got := ask(t, url, "bad"); !strings.Contains(got, "the script's transform_fn: ValueError: no row") {
		t.Errorf("%q", got)
	}
	for path, code := range map[string]int{"/ping": 200, "/v2/health/ready": 200, "/v2/models/nosuch": 404} {
		answer, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != code {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	a := app{submit.For(&shell.App{Err: io.Discard, Out: io.Discard, Getenv: func(name string) string { return map[string]string{"SAGEMAKER_PROGRAM": "other.py"}[name] }, Format: "table"})}
	command := a.serveCommand()
	command.SetArgs([]string{folder})
	command.SilenceUsage, command.SilenceErrors = true, true
	if err := command.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), `no script "other.py"`) {
		t.Errorf("SAGEMAKER_PROGRAM: %v", err)
	}
}
