// Package prepare makes tables ready to learn from, reading them as streams: it does what a plan
// of steps says.
//
// What a step must learn first (a median, a range, categories, components) it learns from the
// rows that will be trained on, and from them alone. It is kept as a Transform, which training
// stores beside the model, so that rows at serving go through the very same steps.
package prepare

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/trainer/table"
)

// TransformFile is the name of a transform's file.
const TransformFile = "transform.json"

// transformVersion changes when older programs could not read a transform.
const transformVersion = "clary-transform/1"

// Transform is what was learned, and turns raw rows into what a model was trained on. It may be
// applied by several goroutines at once.
type Transform struct {
	Version string `json:"version"`
	Label   string `json:"label,omitempty"`
	// Missing are texts that mean that a cell is missing, beside the usual ones.
	Missing []string `json:"missing,omitempty"`
	// Input are the columns of raw rows, without the label.
	Input []table.Field `json:"input"`
	// Columns are those of raw files in their order, the label included, if these have no header.
	Columns []string  `json:"columns,omitempty"`
	Steps   []Learned `json:"steps"`
	// Output are the columns that come out, without the label.
	Output []string `json:"output"`
}

// Learned is exactly one of its fields.
type Learned struct {
	Drop   *steps.Drop     `json:"drop,omitempty"`
	Clip   *LearnedClip    `json:"clip,omitempty"`
	Fill   *LearnedFill    `json:"fill,omitempty"`
	Scale  *LearnedScale   `json:"scale,omitempty"`
	OneHot []LearnedOneHot `json:"one_hot,omitempty"`
	PCA    *LearnedPCA     `json:"pca,omitempty"`
}

// operation changes batches, each alone.
type operation interface {
	apply(b *table.Batch) error
}

func (l Learned) operation() operation {
	switch {
	case l.Drop != nil:
		return learnedDrop(*l.Drop)
	case l.Clip != nil:
		return *l.Clip
	case l.Fill != nil:
		return *l.Fill
	case l.Scale != nil:
		return *l.Scale
	case l.PCA != nil:
		return *l.PCA
	}
	return learnedOneHots(l.OneHot)
}

// Apply turns raw rows into prepared ones. The label may be among the columns or not; it stays as
// it is. Columns that the transform does not know are refused, since something is wrong then.
func (t *Transform) Apply(b *table.Batch) error {
	columns := make([]table.Column, 0, len(t.Input)+1)
	known := map[string]bool{}
	for _, field := range t.Input {
		c := b.Column(field.Name)
		if c == nil {
			return fault.New(fault.Invalid, "column %q is missing", field.Name)
		}
		if c.Kind != field.Kind {
			return fault.New(fault.Invalid, "column %q is %s where the transform learned of %s", field.Name, c.Kind, field.Kind)
		}
		known[field.Name] = true
		columns = append(columns, *c)
	}
	for _, c := range b.Columns {
		if t.Label != "" && c.Name == t.Label {
			columns = append(columns, c)
		} else if !known[c.Name] {
			return fault.New(fault.Invalid, "column %q is none that the transform knows", c.Name)
		}
	}
	b.Columns = columns
	for i, step := range t.Steps {
		if err := step.operation().apply(b); err != nil {
			return fmt.Errorf("transform step %d: %w", i+1, err)
		}
	}
	return nil
}

// Save writes the transform.
func (t *Transform) Save(path string) error {
	text, err := json.MarshalIndent(t, "", "  ")
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fault.New(fault.Internal, "write the transform: %w", err)
	}
	return nil
}

// Load reads and checks a transform.
func Load(path string) (*Transform, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "read the transform: %w", err)
	}
	t, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// Parse reads and checks the text of a transform.
func Parse(text []byte) (*Transform, error) {
	var t Transform
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fault.New(fault.Invalid, "is no transform: %w", err)
	}
	if t.Version != transformVersion {
		return nil, fault.New(fault.Invalid, "is a transform of %q: this program reads %q", t.Version, transformVersion)
	}
	// What it does to a row without cells tells whether its parts fit together.
	probe := table.NewBatch(t.Input, 0)
	if err := t.Apply(&probe); err != nil {
		return nil, fault.New(fault.Invalid, "does not fit together: %w", err)
	}
	var names []string
	for _, f := range probe.Fields() {
		names = append(names, f.Name)
	}
	if !slices.Equal(names, t.Output) {
		return nil, fault.New(fault.Invalid, "its steps make the columns %q, and it says %q", names, t.Output)
	}
	return &t, nil
}

// numbersOf is a column that must be there and hold numbers.
func numbersOf(b *table.Batch, name string) (*table.Column, error) {
	c := b.Column(name)
	if c == nil {
		return nil, fault.New(fault.Invalid, "column %q is missing", name)
	}
	if c.Kind != table.Number {
		return nil, fault.New(fault.Invalid, "column %q is text, not numbers", name)
	}
	return c, nil
}

type learnedDrop steps.Drop

func (d learnedDrop) apply(b *table.Batch) error {
	for _, name := range d.Columns {
		if b.Column(name) == nil {
			return fault.New(fault.Invalid, "column %q to drop is missing", name)
		}
	}
	b.Columns = slices.DeleteFunc(slices.Clone(b.Columns), func(c table.Column) bool { return slices.Contains(d.Columns, c.Name) })
	return nil
}

// LearnedClip has the bounds of each column. What is beyond becomes the bound, or missing.
type LearnedClip struct {
	Columns []string  `json:"columns"`
	Low     []float64 `json:"low"`
	High    []float64 `json:"high"`
	Missing bool      `json:"missing,omitempty"`
}

func (l LearnedClip) apply(b *table.Batch) error {
	if len(l.Low) != len(l.Columns) || len(l.High) != len(l.Columns) {
		return errShort("clip")
	}
	for i, name := range l.Columns {
		c, err := numbersOf(b, name)
		if err != nil {
			return err
		}
		for row, v := range c.Numbers {
			if v >= l.Low[i] && v <= l.High[i] || math.IsNaN(v) {
				continue
			}
			if c.Numbers[row] = max(l.Low[i], min(v, l.High[i])); l.Missing {
				c.Numbers[row] = math.NaN()
			}
		}
	}
	return nil
}

func errShort(step string) error {
	return fault.New(fault.Invalid, "%s has not one value for each column", step)
}

// LearnedFill has what stands for a missing cell: of columns of numbers and of texts.
type LearnedFill struct {
	Numbers map[string]float64 `json:"numbers,omitempty"`
	Texts   map[string]string  `json:"texts,omitempty"`
}

func (l LearnedFill) apply(b *table.Batch) error {
	found := 0
	for i := range b.Columns {
		c := &b.Columns[i]
		if v, ok := l.Numbers[c.Name]; ok && c.Kind == table.Number {
			found++
			for row, cell := range c.Numbers {
				if math.IsNaN(cell) {
					c.Numbers[row] = v
				}
			}
		}
		if v, ok := l.Texts[c.Name]; ok && c.Kind == table.Text {
			found++
			for row, cell := range c.Texts {
				if cell == "" {
					c.Texts[row] = v
				}
			}
		}
	}
	if found != len(l.Numbers)+len(l.Texts) {
		return fault.New(fault.Invalid, "a column to fill is missing")
	}
	return nil
}

// LearnedScale subtracts each column's offset and multiplies by its factor, then adds Shift.
type LearnedScale struct {
	Columns []string  `json:"columns"`
	Offset  []float64 `json:"offset"`
	Factor  []float64 `json:"factor"`
	Shift   float64   `json:"shift,omitempty"`
}

func (l LearnedScale) apply(b *table.Batch) error {
	if len(l.Offset) != len(l.Columns) || len(l.Factor) != len(l.Columns) {
		return errShort("scale")
	}
	for i, name := range l.Columns {
		c, err := numbersOf(b, name)
		if err != nil {
			return err
		}
		for row, v := range c.Numbers {
			c.Numbers[row] = (v-l.Offset[i])*l.Factor[i] + l.Shift
		}
	}
	return nil
}

// LearnedOneHot has the values of a column, in order.
type LearnedOneHot struct {
	Column string   `json:"column"`
	Values []string `json:"values"`
}

type learnedOneHots []LearnedOneHot

func (l learnedOneHots) apply(b *table.Batch) error {
	if len(l) == 0 {
		return errors.New("a step of no kind that this program knows")
	}
	values := map[string][]string{}
	for _, one := range l {
		if c := b.Column(one.Column); c == nil || c.Kind != table.Text {
			return fault.New(fault.Invalid, "column %q to encode is missing, or no text", one.Column)
		}
		values[one.Column] = one.Values
	}
	var columns []table.Column
	for _, c := range b.Columns {
		names, encoded := values[c.Name]
		if !encoded {
			columns = append(columns, c)
			continue
		}
		at := map[string]int{}
		for i, value := range names {
			at[value] = len(columns) + i
		}
		for _, value := range names {
			columns = append(columns, table.Column{
				Field: table.Field{Name: c.Name + "=" + value, Kind: table.Number}, Numbers: make([]float64, b.Rows),
			})
		}
		for row, text := range c.Texts {
			if to, known := at[text]; known {
				columns[to].Numbers[row] = 1
			}
		}
	}
	b.Columns = columns
	return nil
}

// LearnedPCA has the mean of each column and the components, a row of weights for each.
type LearnedPCA struct {
	Columns    []string    `json:"columns"`
	Mean       []float64   `json:"mean"`
	Components [][]float64 `json:"components"`
	// Explained is the share of the variance that each component keeps.
	Explained []float64 `json:"explained"`
}

func (l LearnedPCA) apply(b *table.Batch) error {
	if len(l.Mean) != len(l.Columns) {
		return errShort("pca")
	}
	from := make([][]float64, len(l.Columns))
	for i, name := range l.Columns {
		c, err := numbersOf(b, name)
		if err != nil {
			return err
		}
		from[i] = c.Numbers
	}
	var columns []table.Column
	for _, c := range b.Columns {
		if !slices.Contains(l.Columns, c.Name) {
			columns = append(columns, c)
		}
	}
	var made []table.Column
	for k, weights := range l.Components {
		if len(weights) != len(l.Columns) {
			return errShort("pca")
		}
		c := table.Column{Field: table.Field{Name: fmt.Sprintf("pca_%d", k+1), Kind: table.Number}, Numbers: make([]float64, b.Rows)}
		for i, w := range weights {
			for row, v := range from[i] {
				c.Numbers[row] += w * (v - l.Mean[i])
			}
		}
		made = append(made, c)
	}
	b.Columns = append(made, columns...)
	return nil
}
