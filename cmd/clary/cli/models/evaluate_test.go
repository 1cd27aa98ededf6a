package models

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/clienttest"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/prepare"
	"github.com/clary-ml/clary/trainer/spec"
	"github.com/clary-ml/clary/trainer/steps"
)

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
		a := app{submit.For(&shell.App{In: strings.NewReader(in), Out: &out, Err: &out, Getenv: func(string) string { return "" }, Format: format})}
		command := a.evaluateCommand()
		if args[0] == "predict" {
			command = a.predictCommand()
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

// evaluated is the accuracy that clary evaluate finds.
func evaluated(t *testing.T, env map[string]string, args ...string) (float64, error) {
	t.Helper()
	var out bytes.Buffer
	a := app{submit.For(&shell.App{In: strings.NewReader(""), Out: &out, Err: io.Discard, Getenv: func(name string) string { return env[name] }, Format: "json"})}
	command := a.evaluateCommand()
	command.SetArgs(args)
	command.SilenceUsage, command.SilenceErrors = true, true
	if err := command.ExecuteContext(t.Context()); err != nil {
		return 0, err
	}
	var found struct{ Accuracy float64 }
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	return found.Accuracy, nil
}

// scaled prepares rows by a plan that only scales: the names of the columns stay. The model beside
// it finds the class of every row that was scaled once, and of half of those scaled twice or never.
func scaled(t *testing.T, columns []string) (raw, prepared, model string) {
	t.Helper()
	dir := t.TempDir()
	raw, prepared, model = filepath.Join(dir, "rows.csv"), filepath.Join(dir, "prepared"), filepath.Join(dir, "model")
	text := "x,y,side\n"
	if columns != nil {
		text = ""
	}
	for i := range 10 {
		text += fmt.Sprintf("%d,%d,%s\n", i, 1000-100*i, map[bool]string{true: "left", false: "right"}[i > 4])
	}
	plan := steps.Plan{Label: "side", Columns: columns, Steps: []steps.Step{{Scale: &steps.Scale{To: []float64{0, 1}}}}}
	for _, err := range []error{os.WriteFile(raw, []byte(text), 0o600), os.Mkdir(prepared, 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := (prepare.Run{Plan: plan, Inputs: map[string]string{prepare.MainInput: raw}, Output: prepared}).Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	learned, err := prepare.Load(filepath.Join(prepared, prepare.TransformFolder, prepare.TransformFile))
	if err != nil {
		t.Fatal(err)
	}
	manifest := checkpoint.Manifest{
		Network:   spec.Network{Input: []int{2}, Layers: []spec.Layer{{Dense: &spec.Dense{Units: 2}}}, Loss: spec.CrossEntropy},
		Data:      spec.Data{Format: spec.FormatCSV, Header: true, Classes: []string{"left", "right"}},
		Transform: &checkpoint.Transformed{Transform: learned},
	}
	if err := checkpoint.SaveModel(model, manifest, []float32{1, 0, 0, 1, 0, 0}); err != nil {
		t.Fatal(err)
	}
	return raw, prepared, model
}

func TestRowsAreScaledOnceWhereverTheyLie(t *testing.T) {
	store, err := clienttest.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	to := store.Context()
	env := map[string]string{
		config.EnvAddress: strings.Join(to.Addresses, ","), config.EnvToken: to.Token, config.EnvPin: to.CAPin, "HOME": t.TempDir(),
	}
	raw, prepared, model := scaled(t, nil)
	headless, _, plain := scaled(t, []string{"x", "y", "side"})
	upload := func(uri, path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		store.PutObject(uri, text)
	}
	train, transform := filepath.Join(prepared, "train", "train.csv"), filepath.Join(prepared, "transform", "transform.json")
	upload("s3://lab/side/train/train.csv", train)
	upload("s3://lab/side/transform/transform.json", transform)
	upload("s3://top/train/train.csv", train)
	upload("s3://top/transform/transform.json", transform)
	upload("s3://alone/train/train.csv", train)
	upload("s3://alone/raw.csv", raw)
	upload("s3://alone/headless.csv", headless)
	for _, args := range [][]string{
		{model, filepath.Join(prepared, "train")},
		{model, "s3://lab/side/train/"},
		{model, "s3://lab/side/train/train.csv"},
		{model, "s3://top/train/"},
		{model, "s3://top/train/train.csv"},
		{model, "s3://alone/train/", "--rows", "prepared"},
		{model, "s3://alone/raw.csv", "--rows", "raw"},
		{model, raw, "--rows", "raw"},
		{plain, headless},
		{plain, "s3://alone/headless.csv"},
	} {
		if accuracy, err := evaluated(t, env, args...); err != nil || accuracy < 0.99 {
			t.Errorf("%v: accuracy %v, %v", args, accuracy, err)
		}
	}
	for _, data := range []string{"s3://alone/train/", "s3://alone/train/train.csv", "s3://alone/raw.csv", raw} {
		if accuracy, err := evaluated(t, env, model, data); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "--rows raw or --rows prepared") {
			t.Errorf("%s may be raw or prepared: accuracy %v, %v", data, accuracy, err)
		}
	}
	if _, err := evaluated(t, env, model, raw, "--rows", "cooked"); err == nil || !strings.Contains(err.Error(), "raw or prepared") {
		t.Errorf("--rows cooked: %v", err)
	}
}

func TestAnEvaluationThatMayBeStoredKeepsItsPages(t *testing.T) {
	store, err := clienttest.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var lost atomic.Pointer[error]
	store.Lose = func(method string) error {
		if err := lost.Load(); err != nil && method == "Evaluate" {
			return *err
		}
		return nil
	}
	c, err := client.Dial(store.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	store.PutObject("s3://lab/m.onnx", []byte("weights"))
	version, _, err := c.RegisterModel(t.Context(), client.Registration{Model: "net", URI: "s3://lab/m.onnx"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, ref string, metrics map[string]float64) (int, error) {
		base := version.Folder() + "evaluation-" + name
		e := cluster.Evaluation{Name: name, Metrics: metrics, Report: base + ".html", Details: base + ".json"}
		_, err := putEvaluation(t.Context(), c, ref, e, func(io.Writer) error { return nil }, nil)
		left := 0
		for _, uri := range []string{e.Report, e.Details} {
			if _, found := store.Object(uri); found {
				left++
			}
		}
		return left, err
	}
	figures := map[string]float64{"auc": 0.9}
	for name, err := range map[string]error{
		"answered": nil, "cancelled": context.Canceled, "broken": fault.New(fault.Internal, "the answer is lost"),
	} {
		lost.Store(&err)
		left, got := put(name, version.Ref(), figures)
		if _, kept := registered(t, c, version.Ref()).Evaluation(name); !kept || left != 2 || (got == nil) != (err == nil) {
			t.Errorf("%s: %d pages of 2 for the figures that are kept (%v), %v", name, left, kept, got)
		}
	}
	lost.Store(nil)
	for name, ref := range map[string]string{"no-figures": version.Ref(), "no-version": "net@9"} {
		if left, err := put(name, ref, nil); err == nil || left != 0 {
			t.Errorf("%s: refused (%v), it leaves %d pages", name, err, left)
		}
	}
}

func registered(t *testing.T, c *client.Client, ref string) cluster.ModelVersion {
	t.Helper()
	view, err := c.ModelVersion(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return view.Version
}
