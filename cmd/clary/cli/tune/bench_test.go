package tune

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/submit"
)

func TestTuneBenchPrintsTheRegretsOfEachTable(t *testing.T) {
	var text strings.Builder
	for i := range 15625 {
		fmt.Fprintf(&text, "%d%d%d%d%d%d,%d,%d\n", i%5, i/5%5, i/25%5, i/125%5, i/625%5, i/3125, i, i+1)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "nasbench201_a.csv"), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	_, _ = zipped.Write([]byte(text.String()))
	_ = zipped.Close()
	if err := os.WriteFile(filepath.Join(folder, "nasbench201_b.csv.gz"), packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "README.md"), []byte("no table"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		var out, notes bytes.Buffer
		a := app{submit.For(&shell.App{Out: &out, Err: &notes, Getenv: os.Getenv, Width: func() int { return 80 }})}
		a.Format = "json"
		command := a.tuneBenchCommand()
		command.SetArgs(args)
		if err := command.Execute(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out.String()
	}
	var got struct {
		Tables map[string]map[string]float64 `json:"tables"`
		Mean   map[string]float64            `json:"mean"`
		CPU    *float64                      `json:"cpu_ms_per_ask"`
	}
	first := run("--tables", folder, "--sampler", "random", "--trials", "50", "--seeds", "3")
	if err := json.Unmarshal([]byte(first), &got); err != nil {
		t.Fatalf("%v: %s", err, first)
	}
	a, b := got.Tables["nasbench201_a"], got.Tables["nasbench201_b"]
	if len(got.Tables) != 2 || len(a) != 3 || got.CPU == nil {
		t.Fatal(first)
	}
	for _, key := range []string{"T10", "T25", "T50"} {
		// The least of n uniform ranks is 1/(n+1), and the median has regret 1.
		if a[key] != b[key] || a[key] != got.Mean[key] || a[key] <= 0 || a[key] > 0.6 {
			t.Errorf("%s: %v and %v, mean %v", key, a[key], b[key], got.Mean[key])
		}
	}
	if a["T50"] >= a["T10"] {
		t.Errorf("50 trials are no better than 10: %v", a)
	}
}
