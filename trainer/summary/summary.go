// Package summary learns from a stream of batches what there is to say of a table's columns:
// counts, moments, quantiles and the commonest values. Summaries of parts merge, so that parts
// may be read at once; merged in the same order they are the same to the bit.
package summary

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/DataDog/sketches-go/ddsketch"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/table"
)

const (
	// MaxExact is up to how many numbers quantiles are exact; beyond it they are off by a part
	// of Accuracy of their value (DDSketch: Masson, Rim and Lee, VLDB 2019).
	MaxExact = 1 << 16
	// Accuracy is relative to the quantile's value.
	Accuracy = 0.001
	// MaxValues is how many different texts of a column are counted. Those that come up first
	// once there are more are counted together.
	MaxValues = 10_000

	maxSketched = 1e300
)

// Column is what is known of one column. Its zero value, with a field, has seen nothing.
type Column struct {
	table.Field
	Rows    int64 // missing cells included
	Missing int64
	// Mean, Min and Max are of the numbers there are.
	Mean, Min, Max float64
	// Others counts texts beyond the first MaxValues different ones.
	Others int64

	squares float64 // sum of squared distances to the mean
	exact   []float64
	sketch  *ddsketch.DDSketch
	counts  map[string]int64
}

// Add reads the column's cells of a batch.
func (s *Column) Add(c *table.Column) {
	if c.Kind == table.Number {
		s.addNumbers(c.Numbers)
		return
	}
	s.Rows += int64(len(c.Texts))
	for _, text := range c.Texts {
		if text == "" {
			s.Missing++
		} else {
			s.count(text, 1)
		}
	}
}

func (s *Column) count(text string, n int64) {
	if s.counts == nil {
		s.counts = map[string]int64{}
	}
	if _, known := s.counts[text]; known {
		s.counts[text] += n
	} else if len(s.counts) < MaxValues {
		s.counts[strings.Clone(text)] = n // a cell keeps all the text around it
	} else {
		s.Others += n
	}
}

// addNumbers merges the moments of a batch, which keeps them as exact as two passes would
// (Chan, Golub and LeVeque 1979).
func (s *Column) addNumbers(values []float64) {
	part := Column{Field: s.Field, Rows: int64(len(values)), Min: math.Inf(1), Max: math.Inf(-1)}
	sum := 0.0
	for _, v := range values {
		if math.IsNaN(v) {
			part.Missing++
			continue
		}
		sum += v / float64(len(values))
		part.Min, part.Max = min(part.Min, v), max(part.Max, v)
	}
	if n := part.Count(); n > 0 {
		part.Mean = sum * (float64(part.Rows) / float64(n))
		for _, v := range values {
			if !math.IsNaN(v) {
				part.squares += (v - part.Mean) * (v - part.Mean)
			}
		}
	}
	s.mergeMoments(&part)
	for _, v := range values {
		if !math.IsNaN(v) {
			s.place(v)
		}
	}
}

// place takes a number for the quantiles.
func (s *Column) place(v float64) {
	if s.sketch == nil {
		if s.exact = append(s.exact, v); len(s.exact) > MaxExact {
			s.blur()
		}
		return
	}
	// The only error is of numbers beyond the sketch's range, and these are within.
	_ = s.sketch.Add(max(-maxSketched, min(v, maxSketched)))
}

// blur goes over from numbers to a sketch.
func (s *Column) blur() {
	sketch, err := ddsketch.LogUnboundedDenseDDSketch(Accuracy)
	if err != nil {
		panic("summary: the accuracy is one: " + err.Error())
	}
	values := s.exact
	s.exact, s.sketch = nil, sketch
	for _, v := range values {
		s.place(v)
	}
}

func (s *Column) mergeMoments(o *Column) {
	a, b := float64(s.Count()), float64(o.Count())
	switch {
	case b == 0:
	case a == 0:
		s.Mean, s.squares, s.Min, s.Max = o.Mean, o.squares, o.Min, o.Max
	default:
		delta := o.Mean - s.Mean
		s.Mean += delta * (b / (a + b))
		s.squares += o.squares + delta*delta*(a*(b/(a+b)))
		s.Min, s.Max = min(s.Min, o.Min), max(s.Max, o.Max)
	}
	s.Rows += o.Rows
	s.Missing += o.Missing
}

// Merge adds what another summary of the same column knows, of rows that come after.
func (s *Column) Merge(o *Column) {
	s.mergeMoments(o)
	for _, v := range o.exact {
		s.place(v)
	}
	if o.sketch != nil {
		if s.sketch == nil {
			s.blur()
		}
		_ = s.sketch.MergeWith(o.sketch) // both were made alike
	}
	for _, v := range o.Values() {
		s.count(v.Text, v.Count)
	}
	s.Others += o.Others
}

// Count is how many cells are not missing.
func (s *Column) Count() int64 { return s.Rows - s.Missing }

// Deviation is the standard deviation of the numbers, of the sample (n-1); 0 of fewer than two.
func (s *Column) Deviation() float64 {
	if s.Count() < 2 {
		return 0
	}
	return math.Sqrt(s.squares / float64(s.Count()-1))
}

// Quantile is between the numbers that enclose it, in proportion, while quantiles are exact.
// It is NaN if there is none.
func (s *Column) Quantile(q float64) float64 {
	if s.sketch != nil {
		v, err := s.sketch.GetValueAtQuantile(q)
		if err != nil {
			return math.NaN()
		}
		return max(s.Min, min(v, s.Max))
	}
	if len(s.exact) == 0 {
		return math.NaN()
	}
	if !slices.IsSorted(s.exact) {
		sorted := slices.Clone(s.exact)
		slices.Sort(sorted)
		s.exact = sorted
	}
	at := q * float64(len(s.exact)-1)
	low := int(at)
	if low >= len(s.exact)-1 {
		return s.exact[len(s.exact)-1]
	}
	share := at - float64(low)
	return s.exact[low]*(1-share) + s.exact[low+1]*share
}

// Bin is how many numbers are from one to below another; the last bin of a histogram has its upper
// end too.
type Bin struct {
	From  float64 `json:"from"`
	To    float64 `json:"to"`
	Count int64   `json:"count"`
}

// Histogram counts the numbers in at most so many bins of equal width, which is a whole number if
// all of them are; of one number only there is one bin, of none there is none.
func (s *Column) Histogram(bins int) []Bin {
	from, width := s.Min, s.Max/float64(bins)-s.Min/float64(bins)
	switch {
	case s.Count() == 0 || s.Kind != table.Number:
		return nil
	case !(width > 0):
		return []Bin{{s.Min, s.Max, s.Count()}}
	case s.whole():
		width = math.Ceil((s.Max - s.Min + 1) / float64(bins))
		bins = int(math.Ceil((s.Max - s.Min + 1) / width))
	}
	out := make([]Bin, bins)
	for i := range out {
		// In halves, since the whole distance may be more than a number can be.
		out[i].From, out[i].To = from+float64(i)/2*width+float64(i)/2*width, from+float64(i+1)/2*width+float64(i+1)/2*width
	}
	out[bins-1].To = max(out[bins-1].To, s.Max)
	put := func(v float64, n int64) {
		at := int((max(s.Min, min(v, s.Max))/2 - from/2) / (width / 2))
		out[max(0, min(at, bins-1))].Count += n
	}
	for _, v := range s.exact {
		put(v, 1)
	}
	if s.sketch != nil {
		s.sketch.ForEach(func(v, n float64) bool { put(v, int64(n)); return false })
	}
	return out
}

// whole reports whether all numbers are known and whole, and neighbours can be told apart.
func (s *Column) whole() bool {
	return s.sketch == nil && s.Max-s.Min < 1<<52 && !slices.ContainsFunc(s.exact, func(v float64) bool { return v != math.Trunc(v) })
}

// Value is a text and how often it is there.
type Value struct {
	Text  string `json:"text"`
	Count int64  `json:"count"`
}

// Values are the texts, the commonest first, equal ones by text.
func (s *Column) Values() []Value {
	values := make([]Value, 0, len(s.counts))
	for text, n := range s.counts {
		values = append(values, Value{text, n})
	}
	slices.SortFunc(values, func(a, b Value) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Text, b.Text))
	})
	return values
}

// Table is what is known of all columns.
type Table struct{ Columns []Column }

// New is a summary that has seen nothing.
func New(fields []table.Field) *Table {
	t := &Table{}
	for _, f := range fields {
		t.Columns = append(t.Columns, Column{Field: f})
	}
	return t
}

// Add reads a batch that has the table's columns.
func (t *Table) Add(b table.Batch) error {
	if len(b.Columns) != len(t.Columns) {
		return fault.New(fault.Internal, "a batch of %d columns for a summary of %d", len(b.Columns), len(t.Columns))
	}
	for i := range t.Columns {
		t.Columns[i].Add(&b.Columns[i])
	}
	return nil
}

// Merge adds what another summary knows, of rows that come after.
func (t *Table) Merge(o *Table) {
	for i := range t.Columns {
		t.Columns[i].Merge(&o.Columns[i])
	}
}

// Column is the summary of that column, or nil.
func (t *Table) Column(name string) *Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}
