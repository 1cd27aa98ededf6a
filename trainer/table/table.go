// Package table reads and writes tables as streams, so that data larger than memory passes:
// CSV, JSON lines and Parquet, in files of one channel, plain or compressed by gzip.
//
// A table is read in batches of some thousand rows. Batches are cut from a file one after
// another and parsed on all processors; what is made of them comes back in the order of the
// file. What cannot be read is named with its file and line, and ends the reading, is
// skipped, or is put aside, as the caller chooses.
package table

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
)

// Kind says what the cells of a column are.
type Kind string

// The kinds. Until a table's kinds are known, all its columns are text.
const (
	Text   Kind = "text"
	Number Kind = "number"
)

// Field is a column's name and kind.
type Field struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
}

// Column is one column of a batch: Texts or Numbers has a cell for each row, by the kind.
// A missing cell is "" or NaN.
type Column struct {
	Field
	Texts   []string
	Numbers []float64
}

// Missing reports whether the cell of a row is missing.
func (c *Column) Missing(row int) bool {
	if c.Kind == Number {
		return math.IsNaN(c.Numbers[row])
	}
	return c.Texts[row] == ""
}

// Keep leaves only the rows that are marked.
func (c *Column) Keep(marked []bool) {
	if c.Kind == Number {
		c.Numbers = keep(c.Numbers, marked)
	} else {
		c.Texts = keep(c.Texts, marked)
	}
}

func keep[T any](cells []T, marked []bool) []T {
	kept := cells[:0]
	for i, cell := range cells {
		if marked[i] {
			kept = append(kept, cell)
		}
	}
	return kept
}

// Batch is some rows that follow one another.
type Batch struct {
	Columns []Column
	Rows    int
}

// NewBatch is an empty batch with room for so many rows.
func NewBatch(fields []Field, rows int) Batch {
	b := Batch{Columns: make([]Column, len(fields))}
	for i, f := range fields {
		b.Columns[i].Field = f
		if f.Kind == Number {
			b.Columns[i].Numbers = make([]float64, 0, rows)
		} else {
			b.Columns[i].Texts = make([]string, 0, rows)
		}
	}
	return b
}

// Fields are those of the batch's columns.
func (b *Batch) Fields() []Field {
	fields := make([]Field, len(b.Columns))
	for i := range b.Columns {
		fields[i] = b.Columns[i].Field
	}
	return fields
}

// Column is the column of that name, or nil.
func (b *Batch) Column(name string) *Column {
	for i := range b.Columns {
		if b.Columns[i].Name == name {
			return &b.Columns[i]
		}
	}
	return nil
}

// Keep leaves only the rows that are marked.
func (b *Batch) Keep(marked []bool) {
	rows := 0
	for _, m := range marked {
		if m {
			rows++
		}
	}
	if rows == b.Rows {
		return
	}
	for i := range b.Columns {
		b.Columns[i].Keep(marked)
	}
	b.Rows = rows
}

// Select copies the rows that are marked into a batch of their own.
func (b *Batch) Select(marked []bool) Batch {
	out := Batch{Columns: make([]Column, len(b.Columns)), Rows: b.Rows}
	for i, c := range b.Columns {
		out.Columns[i] = Column{Field: c.Field, Numbers: slices.Clone(c.Numbers), Texts: slices.Clone(c.Texts)}
	}
	out.Keep(marked)
	return out
}

// Policy says what becomes of rows that cannot be read.
type Policy string

// The policies. Strict, the zero value, ends at the first broken row; Skip leaves broken rows
// out; Quarantine leaves them out and gives them to Options.Quarantine. All are counted.
const (
	Strict     Policy = "strict"
	Skip       Policy = "skip"
	Quarantine Policy = "quarantine"
)

// Policies are all there are.
func Policies() []Policy { return []Policy{Strict, Skip, Quarantine} }

// Broken is a row that cannot be read.
type Broken struct {
	File   string `json:"file"`
	Line   int    `json:"line"` // from 1; of a Parquet file the row
	Reason string `json:"reason"`
	Text   string `json:"text"`
}

// Error reads like "rows.csv: line 7: 5 columns where the header has 21".
func (b Broken) Error() string { return fmt.Sprintf("%s: line %d: %s", b.File, b.Line, b.Reason) }

// clip shortens what an error quotes.
func clip(text string) string {
	if len(text) > 40 {
		return strings.ToValidUTF8(text[:40], "") + "…"
	}
	return text
}

// checkNames refuses columns that could not be told apart.
func checkNames(file string, names []string) error {
	seen := map[string]bool{}
	for i, name := range names {
		switch {
		case name == "":
			return fault.New(fault.Invalid, "%s: column %d has no name: is there a header?", file, i+1)
		case seen[name]:
			return fault.New(fault.Invalid, "%s: two columns are named %q: rename one", file, clip(name))
		}
		seen[name] = true
	}
	return nil
}
