package summary_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/trainer/summary"
	"github.com/clary-ml/clary/trainer/table"
)

func numbers(values ...float64) *table.Column {
	return &table.Column{Field: table.Field{Name: "x", Kind: table.Number}, Numbers: values}
}

func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance*(1+math.Abs(b)) }

// However a column is cut into parts, and whichever of them are merged, what is learned is
// what two passes over all of it say.
func TestPartsSayWhatTheWholeSays(t *testing.T) {
	missing, merged := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		center := rapid.SampledFrom([]float64{0, 1e6, -1e12}).Draw(t, "center")
		var all []float64
		total := &summary.Column{}
		rows := 0
		for range rapid.IntRange(1, 6).Draw(t, "parts") {
			var values []float64
			for range rapid.IntRange(0, 20).Draw(t, "n") {
				if rapid.IntRange(0, 4).Draw(t, "gone") == 0 {
					values = append(values, math.NaN())
					missing++
					continue
				}
				v := center + rapid.Float64Range(-100, 100).Draw(t, "v")
				values, all = append(values, v), append(all, v)
			}
			rows += len(values)
			if rapid.Bool().Draw(t, "apart") {
				part := &summary.Column{}
				part.Add(numbers(values...))
				total.Merge(part)
				merged++
			} else {
				total.Add(numbers(values...))
			}
		}
		if total.Rows != int64(rows) || total.Count() != int64(len(all)) {
			t.Fatalf("%d rows, %d there; want %d, %d", total.Rows, total.Count(), rows, len(all))
		}
		if len(all) == 0 {
			if !math.IsNaN(total.Quantile(0.5)) || total.Deviation() != 0 {
				t.Fatalf("of nothing: %v, %v", total.Quantile(0.5), total.Deviation())
			}
			return
		}
		mean, squares := 0.0, 0.0
		for _, v := range all {
			mean += (v - center) / float64(len(all))
		}
		mean += center
		for _, v := range all {
			squares += (v - mean) * (v - mean)
		}
		deviation := 0.0
		if len(all) > 1 {
			deviation = math.Sqrt(squares / float64(len(all)-1))
		}
		if !near(total.Mean, mean, 1e-12) || !near(total.Deviation(), deviation, 1e-3) {
			t.Fatalf("mean %v, deviation %v; want %v, %v", total.Mean, total.Deviation(), mean, deviation)
		}
		slices.Sort(all)
		if total.Min != all[0] || total.Max != all[len(all)-1] || total.Quantile(0) != all[0] || total.Quantile(1) != all[len(all)-1] {
			t.Fatalf("from %v to %v", total.Min, total.Max)
		}
		if middle := (all[(len(all)-1)/2] + all[len(all)/2]) / 2; !near(total.Quantile(0.5), middle, 1e-9) {
			t.Fatalf("median %v, want %v", total.Quantile(0.5), middle)
		}
	})
	if missing == 0 || merged == 0 {
		t.Errorf("%d missing, %d merged", missing, merged)
	}
}

func TestQuantilesOfManyNumbersAreNear(t *testing.T) {
	total := &summary.Column{}
	n := 3 * summary.MaxExact
	for part := range 3 {
		c := &summary.Column{}
		var values []float64
		for i := part; i < n; i += 3 {
			values = append(values, float64(i-n/2))
		}
		c.Add(numbers(values...))
		total.Merge(c)
	}
	for _, q := range []float64{0.01, 0.25, 0.5, 0.9} {
		want := math.Round(q*float64(n-1)) - float64(n/2)
		if got := total.Quantile(q); math.Abs(got-want) > summary.Accuracy*math.Abs(want)+2 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestTextsAreCountedUpToALimit(t *testing.T) {
	c := &summary.Column{Field: table.Field{Kind: table.Text}}
	texts := []string{"b", "a", "", "b", "c", "a"}
	c.Add(&table.Column{Field: table.Field{Kind: table.Text}, Texts: texts})
	if got := c.Values(); !slices.Equal(got, []summary.Value{{"a", 2}, {"b", 2}, {"c", 1}}) || c.Missing != 1 || c.Rows != 6 {
		t.Errorf("%v, %+v", got, c)
	}
	for i := range summary.MaxValues {
		c.Add(&table.Column{Texts: []string{"text" + string(rune(i+1000))}})
	}
	c.Add(&table.Column{Texts: []string{"a", "new"}})
	if got := c.Values(); len(got) != summary.MaxValues || got[0] != (summary.Value{"a", 3}) || c.Others != 4 {
		t.Errorf("%d values, first %v, %d others", len(got), got[0], c.Others)
	}
}

func TestAHistogramHoldsEveryNumberOnce(t *testing.T) {
	whole, sketched := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		bins := rapid.IntRange(1, 40).Draw(t, "bins")
		draw := rapid.SampledFrom([]*rapid.Generator[float64]{
			rapid.Float64Range(-1e308, 1e308), rapid.Float64Range(-3, 3), rapid.Map(rapid.IntRange(-50, 50), func(i int) float64 { return float64(i) }), rapid.Just(1.5),
		}).Draw(t, "of")
		values := rapid.SliceOfN(draw, 0, 60).Draw(t, "values")
		if len(values) > 0 && rapid.IntRange(0, 9).Draw(t, "much") == 0 {
			for len(values) <= summary.MaxExact {
				values = append(values, values...)
			}
			sketched++
		}
		s := &summary.Column{Field: table.Field{Kind: table.Number}}
		s.Add(&table.Column{Field: s.Field, Numbers: values})
		histogram, sum := s.Histogram(bins), int64(0)
		if len(histogram) > bins || len(values) > 0 && len(histogram) == 0 {
			t.Fatalf("%d bins", len(histogram))
		}
		for i, b := range histogram {
			if sum += b.Count; !(b.From <= b.To) || i > 0 && !near(b.From, histogram[i-1].To, 1e-9) {
				t.Fatalf("bins %v", histogram)
			}
			if slices.ContainsFunc(values, func(v float64) bool { return v != math.Trunc(v) || v > 1e3 }) || len(values) > summary.MaxExact {
				continue
			}
			inside := int64(0)
			for _, v := range values {
				if v >= b.From && (v < b.To || i == len(histogram)-1) {
					inside++
				}
			}
			if whole++; inside != b.Count || b.From != math.Trunc(b.From) {
				t.Fatalf("%d of %d numbers are in bin %+v", b.Count, inside, b)
			}
		}
		if sum != int64(len(values)) {
			t.Fatalf("%d of %d numbers are in %v", sum, len(values), histogram)
		}
	})
	if whole == 0 || sketched == 0 {
		t.Errorf("%d bins of whole width, %d sketches", whole, sketched)
	}
}
