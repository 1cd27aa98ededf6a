// Package steps says what is done to a table before it is learned from: a plan of steps. It
// touches no data, so that a submission can be checked wherever it arrives.
package steps

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// Plan is what is done to a table, step by step.
type Plan struct {
	// Label is the column to predict. No step changes it, and rows at serving lack it. It
	// becomes the last column.
	Label string `json:"label,omitempty"`
	// Text names columns that are text although they look like numbers.
	Text []string `json:"text,omitempty"`
	// Missing are texts that mean that a cell is missing, beside the usual ones.
	Missing []string `json:"missing,omitempty"`
	// OnBroken says what becomes of rows that cannot be read.
	OnBroken string `json:"on_broken,omitempty"`
	// Delimiter stands between the cells of a CSV line: a comma if empty.
	Delimiter string `json:"delimiter,omitempty"`
	// Columns names the columns of CSV files without a header.
	Columns []string `json:"columns,omitempty"`
	Steps   []Step   `json:"steps"`
	// Format is csv, jsonl or parquet: of what is written; csv if empty.
	Format string `json:"format,omitempty"`
}

// Step is exactly one of its fields.
type Step struct {
	Drop   *Drop   `json:"drop,omitempty"`
	Clean  *Clean  `json:"clean,omitempty"`
	Split  *Split  `json:"split,omitempty"`
	Sample *Sample `json:"sample,omitempty"`
	Scale  *Scale  `json:"scale,omitempty"`
	OneHot *OneHot `json:"one_hot,omitempty"`
	PCA    *PCA    `json:"pca,omitempty"`
	Join   *Join   `json:"join,omitempty"`
}

// Drop leaves columns out.
type Drop struct {
	Columns []string `json:"columns"`
}

// Clean drops rows that were there before, then treats outliers, then missing cells.
type Clean struct {
	// Columns are those whose outliers and missing cells are treated; all but the label if empty.
	Columns []string `json:"columns,omitempty"`
	// Duplicates drops every row that equals an earlier one in all columns. It remembers 16 bytes
	// of each row.
	Duplicates bool `json:"duplicates,omitempty"`
	// Outliers are numbers beyond so many interquartile ranges from the quartiles (iqr, 1.5 if
	// Limit is 0) or standard deviations from the mean (deviation, 3).
	Outliers string  `json:"outliers,omitempty"`
	Limit    float64 `json:"limit,omitempty"`
	// Then is what becomes of them: clip to the limit (the default), missing, or drop the row,
	// which only preparation does: rows at serving are clipped.
	Then string `json:"then,omitempty"`
	// Missing says what fills missing cells: median (the default) or mean for numbers, and for
	// texts the commonest; zero for numbers and "missing" for texts; keep; or drop the row, which
	// only preparation does: rows at serving get the median and the commonest.
	Missing string `json:"missing,omitempty"`
}

// The words of Clean.
const (
	OutliersIQR       = "iqr"
	OutliersDeviation = "deviation"

	ThenClip    = "clip"
	ThenMissing = "missing"
	ThenDrop    = "drop"

	FillMedian = "median"
	FillMean   = "mean"
	FillZero   = "zero"
	FillKeep   = "keep"
	FillDrop   = "drop"
)

// Split deals the rows to parts that are written apart: train, validation and test. Exactly so
// many of all rows, and of each value of a column if they are stratified, go to each, to the
// nearest whole row; the seed says which.
type Split struct {
	Validation float64 `json:"validation,omitempty"`
	Test       float64 `json:"test,omitempty"`
	Stratify   string  `json:"stratify,omitempty"`
	Seed       uint64  `json:"seed,omitempty"`
}

// Sample keeps so many rows, or such a share of them, drawn by the seed.
type Sample struct {
	Rows  int64   `json:"rows,omitempty"`
	Share float64 `json:"share,omitempty"`
	Seed  uint64  `json:"seed,omitempty"`
}

// Scale changes numbers linearly: their range becomes To ([-1, 1] if empty), or, standardized,
// their mean 0 and their standard deviation 1. Of a column with one value all becomes 0, or the
// middle of To.
type Scale struct {
	Columns     []string  `json:"columns,omitempty"` // all numbers but the label if empty
	To          []float64 `json:"to,omitempty"`
	Standardize bool      `json:"standardize,omitempty"`
}

// OneHot replaces a column of texts by one of 0 and 1 for each of its values, in order of the
// values. Values that training did not have are 0 in all.
type OneHot struct {
	Columns []string `json:"columns,omitempty"` // all texts but the label if empty
	// Limit is how many values a column may have; 0 means 100.
	Limit int `json:"limit,omitempty"`
}

// PCA replaces numbers by their principal components pca_1, pca_2, …: so many, or as many as
// it takes to keep such a share of the variance. Columns are centred and not scaled.
type PCA struct {
	Columns    []string `json:"columns,omitempty"` // all numbers but the label if empty
	Components int      `json:"components,omitempty"`
	Share      float64  `json:"share,omitempty"`
}

// Join adds the columns of a second table by a key that no two of its rows share. The second
// table is held in memory. It stands before all that learns: rows at serving bring its columns.
type Join struct {
	// With names the input channel of the second table.
	With string `json:"with"`
	On   string `json:"on"`
	// Keep keeps rows without a partner, the new columns missing; else they are dropped.
	Keep bool `json:"keep,omitempty"`
}

const (
	// DefaultValues is how many values a column may have that is encoded.
	DefaultValues = 100
	// MaxComponents is how many columns principal components may be of.
	MaxComponents = 2048

	maxValues = 4096
)

const (
	partTrain      = "train"
	partValidation = "validation"
	partTest       = "test"
)

// Parts are all that a plan may write.
func Parts() []string { return []string{partTrain, partValidation, partTest} }

// Parts are the parts that the plan writes, the one that is learned from first.
func (p Plan) Parts() []string {
	parts := []string{partTrain}
	for _, s := range p.Steps {
		if s.Split != nil && s.Split.Validation > 0 {
			parts = append(parts, partValidation)
		}
		if s.Split != nil && s.Split.Test > 0 {
			parts = append(parts, partTest)
		}
	}
	return parts
}

// Name is the step's, "" unless exactly one is set.
func (s Step) Name() string {
	v, name := reflect.ValueOf(s), ""
	for i := range v.NumField() {
		if v.Field(i).IsNil() {
			continue
		}
		if name != "" {
			return ""
		}
		name, _, _ = strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
	}
	return name
}

// Validate reports all that can be said without the data.
func (p Plan) Validate() error {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if p.OnBroken != "" && !slices.Contains([]string{"strict", "skip", "quarantine"}, p.OnBroken) {
		say("on_broken: %q: takes strict, skip or quarantine", p.OnBroken)
	}
	if len(p.Delimiter) > 1 {
		say("delimiter: %q: takes one character", p.Delimiter)
	}
	if p.Format != "" && !slices.Contains([]string{"csv", "jsonl", "parquet"}, p.Format) {
		say("format: %q: takes csv, jsonl or parquet", p.Format)
	}
	splits, learned := 0, ""
	for i, s := range p.Steps {
		at, name := fmt.Sprintf("steps[%d]", i), s.Name()
		if name == "" {
			say("%s: takes exactly one of drop, clean, split, sample, scale, one_hot, pca and join", at)
			continue
		}
		at += "." + name
		for _, mistake := range s.mistakes(p.Label) {
			say("%s.%s", at, mistake)
		}
		selects := s.Split != nil || s.Sample != nil || s.Join != nil
		if selects && learned != "" {
			say("%s: stands behind %s, which learns from the rows that are left to train on: put it before", at, learned)
		}
		if s.Split != nil {
			splits++
		}
		if s.Scale != nil || s.OneHot != nil || s.PCA != nil {
			learned = name
		}
	}
	if splits > 1 {
		say("steps: %d splits: a table is split once", splits)
	}
	if len(wrong) > 0 {
		return fault.New(fault.Invalid, "%s", strings.Join(wrong, "\n"))
	}
	return nil
}

// mistakes are those of one step, each beginning with its field.
func (s Step) mistakes(label string) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	oneOf := func(field, value string, words ...string) {
		if value != "" && !slices.Contains(words, value) {
			say("%s: %q: takes %s", field, value, strings.Join(words, ", "))
		}
	}
	share := func(field string, v float64) {
		if !(v >= 0 && v < 1) {
			say("%s: %v: takes a share from 0 to below 1", field, v)
		}
	}
	var columns []string
	switch {
	case s.Drop != nil:
		if columns = s.Drop.Columns; len(columns) == 0 {
			say("columns: is empty: name what to leave out")
		}
	case s.Clean != nil:
		columns = s.Clean.Columns
		oneOf("outliers", s.Clean.Outliers, OutliersIQR, OutliersDeviation)
		oneOf("then", s.Clean.Then, ThenClip, ThenMissing, ThenDrop)
		oneOf("missing", s.Clean.Missing, FillMedian, FillMean, FillZero, FillKeep, FillDrop)
		if !(s.Clean.Limit >= 0 && s.Clean.Limit < 1e9) {
			say("limit: %v: takes a positive number", s.Clean.Limit)
		}
	case s.Split != nil:
		share("validation", s.Split.Validation)
		share("test", s.Split.Test)
		if sum := s.Split.Validation + s.Split.Test; !(sum > 0 && sum < 1) {
			say("test: with validation it is %v: together they take more than 0 and leave something to train on", sum)
		}
	case s.Sample != nil:
		if share("share", s.Sample.Share); (s.Sample.Rows > 0) == (s.Sample.Share > 0) || s.Sample.Rows < 0 {
			say("rows: give either a number of rows or a share")
		}
	case s.Scale != nil:
		columns = s.Scale.Columns
		if to := s.Scale.To; len(to) > 0 && (len(to) != 2 || !(to[0] < to[1])) || len(to) > 0 && s.Scale.Standardize {
			say("to: takes two numbers, the smaller first, and not beside standardize")
		}
	case s.OneHot != nil:
		if columns = s.OneHot.Columns; s.OneHot.Limit < 0 || s.OneHot.Limit > maxValues {
			say("limit: %d: takes 1 to %d", s.OneHot.Limit, maxValues)
		}
	case s.PCA != nil:
		columns = s.PCA.Columns
		if share("share", s.PCA.Share); (s.PCA.Components > 0) == (s.PCA.Share > 0) || s.PCA.Components < 0 || s.PCA.Components > MaxComponents {
			say("components: give either 1 to %d components or a share of the variance", MaxComponents)
		}
	case s.Join != nil:
		if s.Join.With == "" || s.Join.On == "" {
			say("with: name the input of the second table, and with on the column of both that is the key")
		}
	}
	if label != "" && slices.Contains(columns, label) {
		say("columns: %q is the label, which no step changes", label)
	}
	return wrong
}
