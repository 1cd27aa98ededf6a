package bbob_test

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner/bench/bbob"
)

// check compares the port with lines "bbob_fINDEX_iINSTANCE_dDIM index point coords -> value".
func check(t *testing.T, lines *bufio.Scanner) (values int) {
	t.Helper()
	worst := map[int]float64{}
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " -> ")
		fields := strings.Fields(left)
		var number, instance, dims int
		if _, err := fmt.Sscanf(fields[0], "bbob_f%d_i%d_d%d", &number, &instance, &dims); err != nil || !ok {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		f, err := bbob.New(number, instance, dims)
		if err != nil {
			t.Fatal(err)
		}
		x := make([]float64, dims)
		for i := range x {
			x[i] = parse(t, fields[3+i])
		}
		want := parse(t, right)
		off := math.Abs(f.Value(x)-want) / max(1, math.Abs(want))
		worst[number] = max(worst[number], off)
		values++
	}
	for number := 1; number <= bbob.Functions; number++ {
		if off, checked := worst[number]; off > 1e-9 || !checked {
			t.Errorf("f%d: checked %v, off by up to %v of the value", number, checked, off)
		}
	}
	return values
}

func parse(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func open(t *testing.T, path string) *bufio.Scanner {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(unzipped)
	lines.Buffer(nil, 1<<20)
	return lines
}

func TestValuesAgreeWithTheReference(t *testing.T) {
	if values := check(t, open(t, "testdata/reference.txt.gz")); values < 100 {
		t.Errorf("only %d values", values)
	}
}

// CLARY_BBOB names a folder with all 1,440 reference values and the optima.
func TestAllValuesAgreeWithTheReference(t *testing.T) {
	folder := os.Getenv("CLARY_BBOB")
	if folder == "" {
		t.Skip("CLARY_BBOB names no folder of reference values")
	}
	if values := check(t, open(t, filepath.Join(folder, "bbob_ref_coco.txt.gz"))); values != 1440 {
		t.Errorf("%d values", values)
	}
	optima := 0
	for lines := open(t, filepath.Join(folder, "bbob_fopt.csv.gz")); lines.Scan(); optima++ {
		var number, instance, dims int
		var want float64
		if _, err := fmt.Sscanf(lines.Text(), "%d,%d,%d,%g", &number, &instance, &dims, &want); err != nil {
			t.Fatal(err)
		}
		f, err := bbob.New(number, instance, dims)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(f.Optimum()-want) > 1e-9 {
			t.Errorf("%s instance %d in %d dimensions: optimum %v, want %v", f, instance, dims, f.Optimum(), want)
		}
	}
	if optima != 480 {
		t.Errorf("%d optima", optima)
	}
}

func TestNothingLiesBelowTheOptimumWhichIsReached(t *testing.T) {
	for number := 1; number <= bbob.Functions; number++ {
		for _, dims := range []int{2, 5} {
			f, err := bbob.New(number, 3, dims)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Value(f.At()); math.Abs(got-f.Optimum()) > 1e-6 {
				t.Errorf("%s: %v at its optimum, want %v", f, got, f.Optimum())
			}
			x := make([]float64, dims)
			for i := range 200 {
				for j := range x {
					x[j] = math.Mod(float64((i+1)*(j+2))*0.618, 10) - 5
				}
				if v := f.Value(x); v < f.Optimum() {
					t.Errorf("%s: %v at %v is below the optimum %v", f, v, x, f.Optimum())
				}
			}
		}
	}
}

func TestFunctionsThatAreNotThereAreRefused(t *testing.T) {
	for _, c := range [][3]int{{0, 1, 5}, {25, 1, 5}, {1, 0, 5}, {1, 1, 1}} {
		if _, err := bbob.New(c[0], c[1], c[2]); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", c, err)
		}
	}
}
