package bench_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bench"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/plain"
	"github.com/clary-ml/clary/tuner/space"
)

// nasbench is a table whose repeats are 10*sum of digits, less and more one.
func nasbench(t *testing.T) *bench.Table {
	t.Helper()
	var text strings.Builder
	for i := range 15625 {
		digits, sum := "", 0
		for rest, k := i, 0; k < 6; k++ {
			digits += fmt.Sprint(rest % 5)
			sum += rest % 5
			rest /= 5
		}
		fmt.Fprintf(&text, "%s,%d,%d\n", digits, 10*sum-1, 10*sum+1)
	}
	table, err := bench.ReadTable("nasbench201_made", strings.NewReader(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestRegretIsOneAtTheMedianAndNothingAtTheBest(t *testing.T) {
	table := nasbench(t)
	values := func(digits string) map[string]expr.Value {
		m := make(map[string]expr.Value)
		for i, digit := range digits {
			m[fmt.Sprint("Op", i)] = expr.Num(float64(digit - '0'))
		}
		return m
	}
	for digits, want := range map[string]float64{"444444": 0, "222222": 1, "222224": 10.0 / 12, "000000": 2} {
		c, problems := table.Problem().Space.Parse(values(digits))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if got := table.Regret(c); math.Abs(got-want) > 1e-12 {
			t.Errorf("%s: regret %v, want %v", digits, got, want)
		}
		seen := make(map[float64]bool)
		for seed := range uint64(20) {
			seen[table.Observe(c, chance.New(seed))] = true
		}
		if len(seen) != 2 {
			t.Errorf("%s: observations are %v, want both repeats", digits, seen)
		}
	}
}

func TestErrorsAreScoredByTheirLogarithm(t *testing.T) {
	var text strings.Builder
	for a := range 2 {
		for b := range 2 {
			for rest := range 4 * 3 * 3 * 6 * 2 * 6 * 6 {
				digits := fmt.Sprint(a, b)
				digits = strings.ReplaceAll(digits, " ", "")
				for _, k := range []int{4, 3, 3, 6, 2, 6, 6} {
					digits += fmt.Sprint(rest % k)
					rest /= k
				}
				fmt.Fprintf(&text, "%s,%v,%v\n", digits, 0.1/float64(1+a), 0.001/float64(1+a))
			}
		}
	}
	table, err := bench.ReadTable("hpolib_made", strings.NewReader(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	c := table.Problem().Space.Start()
	got := []float64{}
	for seed := range uint64(20) {
		got = append(got, table.Observe(c, chance.New(seed)))
	}
	slices.Sort(got)
	if got = slices.Compact(got); len(got) != 2 || math.Abs(got[0]+math.Log(0.1)) > 1e-12 || math.Abs(got[1]+math.Log(0.001)) > 1e-12 {
		t.Errorf("observations are %v", got)
	}
}

func TestTablesThatAreWrongAreRefusedWithTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "0 configurations: the family has 15625",
		"012340,1\n012340,2\n": "line 2: 012340 is there already",
		"01234,1\n":            "line 1: 5 digits and 1 values: give 6 and 1 or more",
		"012340\n":             "line 1: 6 digits and 0 values",
		"012345,1\n":           "line 1: digit 6 is '5': Op5 has choices 0 to 4",
		"01234x,1\n":           "line 1: digit 6 is 'x'",
		"012340,one\n":         "line 1: strconv.ParseFloat",
		"012340,NaN\n":         "line 1: value NaN has no finite score",
	} {
		if _, err := bench.ReadTable("nasbench201_x", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := bench.ReadTable("other_x", strings.NewReader("")); err == nil || !strings.Contains(err.Error(), `no family begins with "other"`) {
		t.Error(err)
	}
}

func TestAPlayIsTheSameEachTimeAndNeverGetsWorseWithoutNoise(t *testing.T) {
	for _, workers := range []int{1, 8} {
		for number := range 24 {
			f, err := bench.NewFunction(number+1, 5)
			if err != nil {
				t.Fatal(err)
			}
			play := bench.Play{Make: plain.Random, Trials: 40, Workers: workers, Seed: 3}
			a, err := play.Run(f.Instance(3))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := play.Run(f.Instance(3))
			if !slices.Equal(a, b) || len(a) != 40 {
				t.Errorf("%s: %v, then %v", f.Name(), a, b)
			}
			if !slices.IsSortedFunc(a, func(x, y float64) int { return int(math.Copysign(1, y-x)) }) {
				t.Errorf("%s: regrets grow: %v", f.Name(), a)
			}
		}
	}
}

// watching counts how many trials are pending at each ask.
type watching struct{ pending *[]int }

func (w watching) Suggest(h *tuner.History) (space.Config, error) {
	*w.pending = append(*w.pending, len(h.Pending()))
	return h.Draw(chance.New(uint64(h.Len())))
}

func TestWorkersAreKeptBusy(t *testing.T) {
	var pending []int
	play := bench.Play{Make: func(tuner.Problem) (tuner.Sampler, error) { return watching{&pending}, nil }, Trials: 30, Workers: 8}
	curve, err := play.Run(nasbench(t).Instance(0))
	if err != nil || len(curve) != 30 {
		t.Fatal(curve, err)
	}
	want := append([]int{0, 1, 2, 3, 4, 5, 6}, slices.Repeat([]int{7}, 23)...)
	if !slices.Equal(pending, want) {
		t.Errorf("pending at each ask: %v", pending)
	}
}

func TestSummariesAreMeansWithTheirStandardErrors(t *testing.T) {
	curves := [][]float64{slices.Repeat([]float64{1}, 30), slices.Repeat([]float64{3}, 30)}
	got := bench.Summarize(curves)
	want := []bench.Point{{10, 2, 1}, {25, 2, 1}, {30, 2, 1}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := bench.Summarize(curves[:1]); got[0] != (bench.Point{Trials: 10, Mean: 1}) || bench.Summarize(nil) != nil {
		t.Error(got)
	}
}

func TestTheTimeToARegretIsAMeanOverThoseThatGetThereAndNot(t *testing.T) {
	races := [][]bench.Fall{{{0.1, 0.5}, {2.5, 0.01}, {2.6, 0.5}, {3, 0}}, {{0.5, 1}, {2, 0.02}}}
	if got, want := bench.TimeTo(races, 0.01, 4), math.Sqrt(2.5*4); math.Abs(got-want) > 1e-12 {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestPlaysWithoutTrialsAreRefused(t *testing.T) {
	if _, err := (bench.Play{Make: plain.Random}).Run(nasbench(t)); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
