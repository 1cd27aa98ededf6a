package checkpoint_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/checkpoint"
	"github.com/clary-ml/clary/trainer/spec"
)

func example(step uint64) checkpoint.Checkpoint {
	c := checkpoint.Checkpoint{Header: checkpoint.Header{
		Digest: "d", Seed: -4, Step: step, Epoch: 2, EpochStep: 1, Partial: checkpoint.Partial{Loss: 0.1, Correct: 3, Rows: 4},
		History: []checkpoint.Epoch{{Epoch: 1, Metrics: map[string]float64{"train_loss": 0.30000000000000004}}},
	}}
	for i := range 20_000 {
		c.Weights = append(c.Weights, float32(i)/3)
	}
	c.State = [][]float32{c.Weights, make([]float32, len(c.Weights))}
	return c
}

func save(t *testing.T, dir string, step uint64) string {
	t.Helper()
	path, err := checkpoint.Save(dir, example(step))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatIsSavedIsLoaded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "when", "needed")
	save(t, dir, 7)
	got, found, refused, err := checkpoint.Latest(dir, of("d"))
	want := example(7)
	want.Parameters, want.Slots = 20_000, 2
	if err != nil || !found || len(refused) > 0 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("found %v, refused %v, %v", found, refused, err)
	}
}

func TestOnlyTheNewestAreKept(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []uint64{1, 9, 10, 200} {
		save(t, dir, step)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != checkpoint.Kept {
		t.Errorf("%v, %v", entries, err)
	}
	if c, _, _, err := checkpoint.Latest(dir, of("d")); err != nil || c.Step != 200 {
		t.Errorf("step %d, %v", c.Step, err)
	}
}

// Whichever byte is flipped and wherever the file is cut, it is refused by its name and
// the one before it is used.
func TestDamageIsRefusedAndThePreviousUsed(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 1)
	path := save(t, dir, 2)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string][]byte{"empty": nil, "longer": append(bytes.Clone(whole), 0)}
	for _, at := range []int{0, 8, 12, 14, 20, 200, len(whole) / 2, len(whole) - 40, len(whole) - 1} {
		flipped := bytes.Clone(whole)
		flipped[at] ^= 0x10
		damages[fmt.Sprintf("flipped at %d", at)] = flipped
		damages[fmt.Sprintf("cut at %d", at)] = whole[:at]
	}
	for name, body := range damages {
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		c, found, refused, err := checkpoint.Latest(dir, of("d"))
		if err != nil || !found || c.Step != 1 {
			t.Errorf("%s: step %d, %v", name, c.Step, err)
		}
		if len(refused) != 1 || !strings.Contains(refused[0].Error(), filepath.Base(path)) {
			t.Errorf("%s: refused %v", name, refused)
		}
	}
}

func TestAnotherRunsCheckpointIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 1)
	_, found, refused, err := checkpoint.Latest(dir, of("other"))
	if err != nil || found || len(refused) != 1 || !fault.Is(refused[0], fault.Conflict) {
		t.Errorf("found %v, refused %v, %v", found, refused, err)
	}
}

var network = spec.Network{
	Input: []int{3}, Loss: spec.CrossEntropy,
	Layers: []spec.Layer{{Dense: &spec.Dense{Units: 2}}},
}

func TestModelIsVerifiedWhenLoaded(t *testing.T) {
	dir := t.TempDir()
	weights := []float32{1, 2, 3, 4, 5, 6, 7, 8}
	m := checkpoint.Manifest{Job: "j", Network: network, Metrics: map[string]float64{"validation_accuracy": 0.5}}
	if err := checkpoint.SaveModel(dir, m, weights); err != nil {
		t.Fatal(err)
	}
	got, err := checkpoint.LoadModel(dir)
	if err != nil || fmt.Sprint(got.Weights) != fmt.Sprint(weights) || got.Job != "j" || got.Plan.Parameters != 8 {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, change := range map[string]func(path string) error{
		"weights.bin":   func(path string) error { return os.WriteFile(path, make([]byte, 32), 0o600) },
		"manifest.json": func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
	} {
		path := filepath.Join(dir, name)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		if _, err := checkpoint.LoadModel(dir); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s changed: %v", name, err)
		}
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := checkpoint.LoadModel(t.TempDir()); !fault.Is(err, fault.NotFound) {
		t.Errorf("no model: %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	path, err := checkpoint.Save(f.TempDir(), checkpoint.Checkpoint{Weights: []float32{1, 2}})
	if err != nil {
		f.Fatal(err)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		path := filepath.Join(t.TempDir(), "x.ckpt")
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := checkpoint.Load(path); err != nil && !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
	})
}

func of(digest string) func(checkpoint.Header) bool {
	return func(c checkpoint.Header) bool { return c.Digest == digest }
}
