package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/spec"
)

func TestTheLineOfAJobSaysWhereItStands(t *testing.T) {
	worker := cluster.Task{
		ID: "digits/main/worker-0.2", Role: "worker", Attempt: 2,
		Status: cluster.TaskStatus{Progress: cluster.Progress{Epoch: 9, Step: 45, Total: 100, Metrics: map[string]float64{"validation_accuracy": 0.95123, "train_loss": 0.1, "rate": 0.001}}},
	}
	older := cluster.Task{ID: "digits/main/worker-0.1", Role: "worker", Attempt: 1, Status: cluster.TaskStatus{Progress: cluster.Progress{Epoch: 99}}}
	server := cluster.Task{ID: "digits/main/server-0.2", Role: "server", Attempt: 2}
	tasks := []cluster.Task{older, server, worker}
	for _, row := range []struct {
		name       string
		view       client.JobView
		waits      string
		line, news string
	}{
		{
			"waiting",
			client.JobView{Job: cluster.Job{Name: "digits", State: cluster.JobQueued, Attempt: 1}},
			"needs 4 GPUs",
			"digits  queued  needs 4 GPUs", "digits  queued  needs 4 GPUs",
		},
		{
			"held",
			client.JobView{Job: cluster.Job{Name: "digits", State: cluster.JobQueued, Held: true}},
			"",
			"digits  queued (held)", "digits  queued (held)",
		},
		{
			"running, by the worker of the newest attempt",
			client.JobView{Job: cluster.Job{Name: "digits", State: cluster.JobRunning, Attempt: 2}, Tasks: tasks},
			"",
			"digits  running  attempt 2  █████████░░░░░░░░░░░ 45%  epoch 9  validation accuracy 0.9512  train loss 0.1000  rate 0.001",
			"digits  running  attempt 2  epoch 9  validation accuracy 0.9512  train loss 0.1000  rate 0.001",
		},
		{
			"failed",
			client.JobView{Job: cluster.Job{Name: "digits", State: cluster.JobFailed, Reason: "exit\ncode 3\x1b[2J"}},
			"",
			"digits  failed  exit code 3 [2J", "digits  failed  exit code 3 [2J",
		},
	} {
		if line, news := jobLine(row.view, row.waits); line != row.line || news != row.news {
			t.Errorf("%s:\n%q\n%q", row.name, line, news)
		}
	}
}

func TestALiveLineIsDrawnOverOnATerminalAndWrittenOnceElsewhere(t *testing.T) {
	var out strings.Builder
	plain := live{out: &out}
	plain.draw("1%", "epoch 1")
	plain.draw("2%", "epoch 1")
	plain.draw("3%", "epoch 2")
	plain.end()
	if out.String() != "epoch 1\nepoch 2\n" {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	drawn := live{out: &out, terminal: true, width: func() int { return 8 }}
	drawn.draw("1%", "x")
	drawn.draw("████████ 2%", "x") // too wide: the line would wrap and could not be drawn over
	drawn.end()
	if out.String() != "\r\x1b[K1%\r\x1b[K██████…\n" {
		t.Errorf("%q", out.String())
	}
}

func TestYAMLSaysWhatJSONSays(t *testing.T) {
	value := jobToJSON(client.JobView{
		Job:         cluster.Job{Name: "a", Reason: "yes: no", Labels: map[string]string{"on": "true", "n": "12"}, Spec: []byte(`{"b":[1,2.5,"3",null]}`)},
		Tasks:       []cluster.Task{{ID: "a/main/worker-0.1", Status: cluster.TaskStatus{State: cluster.TaskFailed, ExitCode: 0}}},
		Publication: &cluster.Publication{Outputs: []cluster.Output{{Name: "model", URI: "s3://b/k"}}},
	})
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	written, err := toYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	var back any
	if err := yaml.Unmarshal(written, &back); err != nil {
		t.Fatalf("%s: %v", written, err)
	}
	again, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	var x, y any
	if json.Unmarshal(text, &x) != nil || json.Unmarshal(again, &y) != nil {
		t.Fatal("not JSON")
	}
	first, _ := json.Marshal(x)
	second, _ := json.Marshal(y)
	if !bytes.Equal(first, second) || strings.Contains(string(written), "{") {
		t.Errorf("%s\n%s\n%s", first, second, written)
	}
}

func TestTheShapeOfANetworkIsReadFromTheData(t *testing.T) {
	for _, row := range []struct {
		name, text, label string
		header            bool
		input, classes    int
		names             string
		wrong             string
	}{
		{name: "numbers are classes", text: "1,2,0\n3,4,3\n", label: "last", input: 2, classes: 4},
		{name: "words are sorted", text: "cat,1\ndog,2\ncat,3\n", label: "first", input: 1, classes: 2, names: "cat dog"},
		{name: "a header", text: "x,kind,y\n1,a,2\n3,b,4\n", label: "kind", header: true, input: 2, classes: 2, names: "a b"},
		{name: "fractions are words", text: "1,0.5\n2,1\n", label: "last", input: 1, classes: 2, names: "0.5 1"},
		{name: "ragged", text: "1,2,3\n1,2\n", label: "last", wrong: "record on line 2"},
		{name: "nothing", text: "", label: "last", wrong: "no row"},
		{name: "a header alone", text: "x,y\n", label: "last", header: true, wrong: "no row"},
		{name: "no feature", text: "1\n2\n", label: "last", wrong: "no row of features"},
		{name: "no such column", text: "1,2\n", label: "kind", wrong: "kind"},
	} {
		for _, zipped := range []bool{false, true} {
			text := []byte(row.text)
			if zipped {
				var packed bytes.Buffer
				w := gzip.NewWriter(&packed)
				_, _ = w.Write(text)
				_ = w.Close()
				text = packed.Bytes()
			}
			shape, err := csvShape(bytes.NewReader(text), "data", spec.ColumnNamed(row.label), row.header)
			if row.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), row.wrong) {
					t.Errorf("%s: %v, want %q", row.name, err, row.wrong)
				}
				continue
			}
			if err != nil || shape.input[0] != row.input || shape.classes != row.classes || strings.Join(shape.names, " ") != row.names {
				t.Errorf("%s: %+v, %v", row.name, shape, err)
			}
		}
	}
}

func TestQuantilesAreTakenFromTheSortedTimes(t *testing.T) {
	times := make([]time.Duration, 100)
	for i := range times {
		times[i] = time.Duration(i+1) * time.Millisecond
	}
	if p50, p99 := quantile(times, 0.5), quantile(times, 0.99); p50 != 50 || p99 != 99 {
		t.Errorf("%v %v", p50, p99)
	}
	if quantile(times[:1], 0.99) != 1 || quantile(nil, 0.5) != 0 {
		t.Error("of one, and of none")
	}
}

func TestFreshNamesAreNames(t *testing.T) {
	seen := map[string]bool{}
	for _, word := range []string{"train.py", "./A B", "", "---", strings.Repeat("x", 100), "über", "a"} {
		name := freshName(word)
		var problems cluster.Problems
		if cluster.CheckName(&problems, "name", name); problems != nil || seen[name] {
			t.Errorf("%q becomes %q: %v", word, name, problems)
		}
		seen[name] = true
	}
}

func TestSpansReadAsPeopleSayThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1234 * time.Millisecond: "1.2s", 75 * time.Second: "1m15s", 90 * time.Minute: "1h30m", 72 * time.Hour: "3d",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func pack(t *testing.T, entries ...tar.Header) string {
	t.Helper()
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	w := tar.NewWriter(zipped)
	for _, entry := range entries {
		body := []byte("body")
		if entry.Typeflag != tar.TypeReg {
			body = nil
		}
		entry.Size, entry.Mode = int64(len(body)), 0o644
		if err := w.WriteHeader(&entry); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.tar.gz")
	if err := os.WriteFile(path, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAModelArchiveCannotWriteOutsideOfItsFolder(t *testing.T) {
	regular := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	for name, entries := range map[string][]tar.Header{
		"a path upwards":   {regular("../evil")},
		"an absolute path": {regular("/evil")},
		"a link":           {{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, regular("link/evil")},
		"a file twice":     {regular("a"), regular("a")},
		"a device":         {{Name: "null", Typeflag: tar.TypeChar}},
	} {
		s := &scratch{folder: t.TempDir()}
		if target, err := s.unpack(pack(t, entries...), maxUnpacked); err == nil {
			t.Errorf("%s: unpacked to %s", name, target)
		}
		if _, err := os.Stat(filepath.Join(s.folder, "evil")); err == nil {
			t.Errorf("%s: written outside", name)
		}
	}
	s := &scratch{folder: t.TempDir()}
	target, err := s.unpack(pack(t, tar.Header{Name: "./", Typeflag: tar.TypeDir}, regular("./sub/weights.bin")), maxUnpacked)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(target, "sub", "weights.bin")); string(data) != "body" {
		t.Errorf("%q, %v", data, err)
	}
}

// A model whose one layer passes its input on: the class is the greater feature.
func TestAStoredModelIsScoredAndPredictsHere(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "model")
	manifest := checkpoint.Manifest{
		Network:    spec.Network{Input: []int{2}, Layers: []spec.Layer{{Dense: &spec.Dense{Units: 2}}}, Loss: spec.CrossEntropy},
		Data:       spec.Data{Format: spec.FormatCSV, Classes: []string{"left", "right"}},
		Parameters: 6,
	}
	if err := checkpoint.SaveModel(folder, manifest, []float32{1, 0, 0, 1, 0, 0}); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "test.csv")
	if err := os.WriteFile(data, []byte("5,1,left\n1,5,right\n5,1,right\n1,5,right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(in, format string, args ...string) string {
		t.Helper()
		var out strings.Builder
		app := &App{In: strings.NewReader(in), Out: &out, Err: &out, Getenv: func(string) string { return "" }, format: format}
		command := app.evaluateCommand()
		if args[0] == "predict" {
			command = app.predictCommand()
		}
		command.SetContext(context.Background())
		command.SetArgs(args[1:])
		if err := command.Execute(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out.String()
	}
	if out := run("", "json", "evaluate", folder, data); !strings.Contains(out, `"accuracy": 0.75`) {
		t.Error(out)
	}
	if out := run("", "table", "evaluate", folder, data); !strings.Contains(out, "75.00 %") {
		t.Error(out)
	}
	headed := filepath.Join(t.TempDir(), "headed.csv")
	if err := os.WriteFile(headed, []byte("x,y,side\n5,1,left\n1,5,right\n5,1,right\n1,5,right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	manifest.Data.Header = true
	named := filepath.Join(t.TempDir(), "named")
	if err := checkpoint.SaveModel(named, manifest, []float32{1, 0, 0, 1, 0, 0}); err != nil {
		t.Fatal(err)
	}
	html := filepath.Join(t.TempDir(), "page.html")
	out := run("", "table", "evaluate", named, headed, "--slice", "x", "--html", html)
	if !regexp.MustCompile(`(?s)X +ROWS +ACCURACY.*\n1 +2 +1.0000.*\n5 +2 +0.5000`).MatchString(out) {
		t.Error(out)
	}
	if text, err := os.ReadFile(html); err != nil || !strings.Contains(string(text), "By x") || !strings.Contains(string(text), "ROC") {
		t.Errorf("%v: %s", err, text)
	}
	if out := run("5,1\n1,5\n", "", "predict", folder); out != "left\nright\n" {
		t.Errorf("%q", out)
	}
	lines := strings.Split(strings.TrimSpace(run("5,1\n1,5\n", "json", "predict", folder)), "\n")
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, `"label":"left","probabilities":[0.98`) }) {
		t.Error(lines)
	}
}

// What a machine or a task says of itself must not move the cursor of who looks at it.
func TestAStrangersTextIsSafeForATerminal(t *testing.T) {
	var out strings.Builder
	evil := "a\x1b[2J\u009b2Jb\tc"
	if err := fields(&out, "reason", evil+"\nsecond", "none", ""); err != nil {
		t.Fatal(err)
	}
	if err := table(&out, []string{"reason"}, [][]string{{evil}}); err != nil {
		t.Fatal(err)
	}
	out.WriteString(deedLine(cluster.Deed{User: evil, Object: evil, Result: evil}))
	if strings.ContainsAny(out.String(), "\x1b\u009b\t") || !strings.HasPrefix(out.String(), "reason  a [2J 2Jb c\n        second\n") {
		t.Errorf("%q", out.String())
	}
}
