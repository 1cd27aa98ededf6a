package onnx_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/onnx"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// The model and what onnxruntime's own Python made of it come from test/e2e/testdata/onnxmodel.py.
const classifier = "testdata/classifier.onnx"

func open(t *testing.T) *onnx.Engine {
	t.Helper()
	e, err := onnx.Open(classifier, os.Getenv("CLARY_ONNXRUNTIME"), 1)
	if fault.Is(err, fault.NotFound) {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

type known struct {
	Rows, Probabilities [][]float32
	Labels              []string
}

func want(t *testing.T) (k known) {
	t.Helper()
	text, err := os.ReadFile("testdata/classifier.json")
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err != nil || len(k.Rows) != 20 {
		t.Fatal(len(k.Rows), err)
	}
	return k
}

// request is some of the known rows.
func (k known) request(from, to int) []tensor.Tensor {
	var data []float32
	for _, row := range k.Rows[from:to] {
		data = append(data, row...)
	}
	return []tensor.Tensor{{Name: "x", Type: tensor.Float32, Shape: []int64{int64(to - from), 4}, Data: data}}
}

func (k known) check(t *testing.T, a tensor.Answer, from, to int) {
	t.Helper()
	if a.Err != nil || len(a.Tensors) != 2 || a.Tensors[0].Rows() != to-from {
		t.Errorf("%+v", a)
		return
	}
	for i := range to - from {
		if got := a.Tensors[0].Data.([]string)[i]; got != k.Labels[from+i] {
			t.Errorf("row %d: label %q, want %q", from+i, got, k.Labels[from+i])
		}
		for j, p := range k.Probabilities[from+i] {
			if got := a.Tensors[1].Data.([]float32)[i*3+j]; math.Abs(float64(got-p)) > 1e-5 {
				t.Errorf("row %d: probability %v, want %v", from+i, got, p)
			}
		}
	}
}

func TestAnswersAreThoseOfTheLibrarysOwnPython(t *testing.T) {
	e, k := open(t), want(t)
	s := e.Signature()
	if len(s.Inputs) != 1 || s.Inputs[0].Name != "x" || s.Inputs[0].Type != tensor.Float32 || s.Inputs[0].Width() != 4 || s.Outputs[0].Type != tensor.Bytes || s.Outputs[1].Width() != 3 {
		t.Fatalf("%+v", s)
	}
	k.check(t, e.Run(t.Context(), [][]tensor.Tensor{k.request(0, 20)})[0], 0, 20)
	// Together, each gets its own; a request of another type is converted.
	last := k.request(7, 20)
	doubles, err := last[0].Doubles()
	if err != nil {
		t.Fatal(err)
	}
	last[0].Type, last[0].Data = tensor.Float64, doubles
	answers := e.Run(t.Context(), [][]tensor.Tensor{k.request(0, 3), k.request(3, 7), last})
	k.check(t, answers[0], 0, 3)
	k.check(t, answers[1], 3, 7)
	k.check(t, answers[2], 7, 20)
}

func TestWhatIsWrongIsItsOwnRequestsAlone(t *testing.T) {
	e, k := open(t), want(t)
	wrong := []tensor.Tensor{{Name: "x", Type: tensor.Float32, Shape: []int64{1, 3}, Data: []float32{1, 2, 3}}}
	text := []tensor.Tensor{{Name: "x", Type: tensor.Bytes, Shape: []int64{1, 4}, Data: []string{"a", "b", "c", "d"}}}
	answers := e.Run(t.Context(), [][]tensor.Tensor{wrong, k.request(0, 2), text})
	if !fault.Is(answers[0].Err, fault.Invalid) || !strings.Contains(answers[0].Err.Error(), "onnxruntime:") {
		t.Errorf("three columns: %v", answers[0].Err)
	}
	k.check(t, answers[1], 0, 2)
	if !fault.Is(answers[2].Err, fault.Invalid) || !strings.Contains(answers[2].Err.Error(), "are no numbers") {
		t.Errorf("texts: %v", answers[2].Err)
	}
}

// Each goroutine begins with a small stack, which is moved when it grows: no address may go stale.
func TestManyGoroutinesShareAModel(t *testing.T) {
	e, k := open(t), want(t)
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			for i := range 100 {
				from := (g + i) % 19
				done := make(chan struct{})
				go func() {
					defer close(done)
					k.check(t, e.Run(t.Context(), [][]tensor.Tensor{k.request(from, from+1)})[0], from, from+1)
				}()
				<-done
			}
		})
	}
	wait.Wait()
}

func TestWhatCannotBeOpenedIsSaid(t *testing.T) {
	if _, err := onnx.Open(classifier, "/nowhere/libonnxruntime.so", 1); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "pip install onnxruntime") {
		t.Errorf("no library: %v", err)
	}
	open(t) // or skip
	library := os.Getenv("CLARY_ONNXRUNTIME")
	rubbish := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(rubbish, []byte("this is no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{rubbish, rubbish + "x"} {
		if _, err := onnx.Open(path, library, 1); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
