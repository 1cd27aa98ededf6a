package prepare

import (
	"context"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/gonum/mat"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/trainer/summary"
	"github.com/clary-ml/clary/trainer/table"
)

// learner goes through a plan's steps, reading the table as often as they need.
type learner struct {
	plan   steps.Plan
	source *table.Source
	other  func(channel string) (*table.Source, error)

	// stages makes what is done so far, anew for each reading.
	stages []func() stage
	fields []table.Field // of the table as it is so far
	// known is what the last reading said, of the columns that no step has changed since.
	known     *summary.Table
	transform Transform
	readings  int
	count     table.Count
	tell      func(readings int, rows int64)
}

// learn is the whole of it.
func (l *learner) learn(ctx context.Context) error {
	if _, err := l.source.Infer(ctx, l.plan.Text...); err != nil {
		return err
	}
	l.readings++
	l.fields = slices.Clone(l.source.Fields)
	if label := l.plan.Label; label != "" && l.field(label) == nil {
		return fault.New(fault.Invalid, "label: the input has no column %q: it has %s", label, names(l.fields))
	}
	l.transform = Transform{Version: transformVersion, Label: l.plan.Label, Missing: l.plan.Missing, Columns: l.plan.Columns, Input: l.withoutLabel()}
	for _, step := range l.plan.Steps {
		if err := l.step(ctx, step); err != nil {
			return err
		}
	}
	for _, f := range l.withoutLabel() {
		l.transform.Output = append(l.transform.Output, f.Name)
	}
	return nil
}

func (l *learner) withoutLabel() []table.Field {
	return slices.DeleteFunc(slices.Clone(l.fields), func(f table.Field) bool { return f.Name == l.plan.Label })
}

func (l *learner) field(name string) *table.Field {
	for i := range l.fields {
		if l.fields[i].Name == name {
			return &l.fields[i]
		}
	}
	return nil
}

func names(fields []table.Field) string {
	var all []string
	for _, f := range fields {
		all = append(all, f.Name)
	}
	if len(all) > 20 {
		all = append(all[:20], "…")
	}
	return strings.Join(all, ", ")
}

func (l *learner) step(ctx context.Context, s steps.Step) error {
	name := s.Name()
	switch {
	case s.Drop != nil:
		if _, err := l.columns(name, s.Drop.Columns, ""); err != nil {
			return err
		}
		return l.learned(Learned{Drop: s.Drop})
	case s.Clean != nil:
		return l.clean(ctx, *s.Clean)
	case s.Split != nil:
		return l.split(ctx, *s.Split)
	case s.Sample != nil:
		return l.sample(ctx, *s.Sample)
	case s.Scale != nil:
		return l.scale(ctx, *s.Scale)
	case s.OneHot != nil:
		return l.oneHot(ctx, *s.OneHot)
	case s.PCA != nil:
		return l.pca(ctx, *s.PCA)
	}
	return l.join(ctx, *s.Join)
}

// learned adds what was learned to the transform and to what is done. The columns that it
// changes are to be read again.
func (l *learner) learned(step Learned, changed ...string) error {
	l.transform.Steps = append(l.transform.Steps, step)
	op := step.operation()
	l.stages = append(l.stages, func() stage { return alone{op} })
	probe := table.NewBatch(l.fields, 0)
	if err := op.apply(&probe); err != nil {
		return err
	}
	l.fields = probe.Fields()
	if l.known == nil {
		return nil
	}
	l.known.Columns = slices.DeleteFunc(l.known.Columns, func(c summary.Column) bool {
		return slices.Contains(changed, c.Name)
	})
	return nil
}

// selects adds what changes which rows there are.
func (l *learner) selects(make func() stage) {
	l.stages = append(l.stages, make)
	l.known = nil
}

// columns are those that a step names, or all of a kind but the label ("" is any kind).
func (l *learner) columns(step string, named []string, kind table.Kind) ([]string, error) {
	var found []string
	for _, name := range named {
		f := l.field(name)
		switch {
		case f == nil:
			return nil, mistake(step, "there is no column %q: there are %s", name, names(l.fields))
		case kind != "" && f.Kind != kind:
			return nil, mistake(step, "column %q is %s: it takes columns of kind %s", name, f.Kind, kind)
		}
		found = append(found, name)
	}
	if len(named) > 0 {
		return found, nil
	}
	for _, f := range l.withoutLabel() {
		if kind == "" || f.Kind == kind {
			found = append(found, f.Name)
		}
	}
	return found, nil
}

// read goes through the table once, as it is so far: f several batches at once, take in order.
func read[T any](ctx context.Context, l *learner, f func(*rows) (T, error), take func(T) error) error {
	l.readings++
	stages := make([]stage, 0, len(l.stages))
	for _, make := range l.stages {
		stages = append(stages, make())
	}
	// What changes each batch alone may be done to several at once.
	first := slices.IndexFunc(stages, func(s stage) bool { _, ok := s.(alone); return !ok })
	if first < 0 {
		first = len(stages)
	}
	var seen int64
	feed := func(yield func(*rows) error) error {
		var err error
		l.count, err = table.Map(ctx, l.source, func(b table.Batch) (*rows, error) {
			r := newRows(b)
			return r, all(stages[:first], r)
		}, func(r *rows) error {
			if seen += int64(r.Rows); l.tell != nil {
				l.tell(l.readings, seen)
			}
			if err := all(stages[first:], r); err != nil || r.Rows == 0 {
				return err
			}
			return yield(r)
		})
		return err
	}
	return table.Parallel(ctx, l.source.Workers(), feed, f, take)
}

func all(stages []stage, r *rows) error {
	for _, s := range stages {
		if err := s.pass(r); err != nil {
			return err
		}
	}
	return nil
}

// summaries are of these columns, over the rows to train on.
func (l *learner) summaries(ctx context.Context, columns []string) ([]*summary.Column, error) {
	out := make([]*summary.Column, 0, len(columns))
	for _, name := range columns {
		if l.known != nil && l.known.Column(name) != nil {
			out = append(out, l.known.Column(name))
		}
	}
	if len(out) == len(columns) {
		return out, nil
	}
	total, parts := summary.New(l.fields), len(l.plan.Parts())
	err := read(ctx, l, func(r *rows) (*summary.Table, error) {
		part := summary.New(l.fields)
		return part, part.Add(r.of(0, parts))
	}, func(part *summary.Table) error {
		total.Merge(part)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if l.known = total; len(total.Columns) > 0 && total.Columns[0].Rows == 0 {
		return nil, fault.New(fault.Invalid, "no row is left to learn from")
	}
	out = out[:0]
	for _, name := range columns {
		out = append(out, total.Column(name))
	}
	return out, nil
}

func (l *learner) clean(ctx context.Context, c steps.Clean) error {
	columns, err := l.columns("clean", c.Columns, "")
	if err != nil {
		return err
	}
	if c.Duplicates {
		l.selects(func() stage { return newDedupe() })
	}
	if c.Outliers != "" {
		if err := l.outliers(ctx, c, columns); err != nil {
			return err
		}
	}
	if c.Missing == steps.FillKeep {
		return nil
	}
	return l.fill(ctx, c, columns)
}

func (l *learner) outliers(ctx context.Context, c steps.Clean, columns []string) error {
	numbers := slices.DeleteFunc(slices.Clone(columns), func(name string) bool { return l.field(name).Kind != table.Number })
	sums, err := l.summaries(ctx, numbers)
	if err != nil {
		return err
	}
	learned := LearnedClip{Columns: numbers, Missing: c.Then == steps.ThenMissing}
	for _, s := range sums {
		low, high := math.Inf(-1), math.Inf(1)
		if s.Count() > 0 && c.Outliers == steps.OutliersIQR {
			q1, q3 := s.Quantile(0.25), s.Quantile(0.75)
			reach := (q3 - q1) * orElse(c.Limit, 1.5)
			low, high = q1-reach, q3+reach
		} else if s.Count() > 0 {
			reach := s.Deviation() * orElse(c.Limit, 3)
			low, high = s.Mean-reach, s.Mean+reach
		}
		// JSON has no infinities.
		learned.Low, learned.High = append(learned.Low, max(low, -math.MaxFloat64)), append(learned.High, min(high, math.MaxFloat64))
	}
	if c.Then == steps.ThenDrop {
		l.selects(func() stage { return within{learned} })
	}
	return l.learned(Learned{Clip: &learned}, numbers...)
}

func orElse(v, otherwise float64) float64 {
	if v == 0 {
		return otherwise
	}
	return v
}

func (l *learner) fill(ctx context.Context, c steps.Clean, columns []string) error {
	sums, err := l.summaries(ctx, columns)
	if err != nil {
		return err
	}
	learned := LearnedFill{Numbers: map[string]float64{}, Texts: map[string]string{}}
	for _, s := range sums {
		switch {
		case s.Kind == table.Text && (c.Missing == steps.FillZero || s.Count() == 0):
			learned.Texts[s.Name] = "missing"
		case s.Kind == table.Text:
			learned.Texts[s.Name] = s.Values()[0].Text
		case c.Missing == steps.FillZero || s.Count() == 0:
			learned.Numbers[s.Name] = 0
		case c.Missing == steps.FillMean:
			learned.Numbers[s.Name] = s.Mean
		default:
			learned.Numbers[s.Name] = s.Quantile(0.5)
		}
	}
	var changed []string
	for _, s := range sums {
		if s.Missing > 0 {
			changed = append(changed, s.Name)
		}
	}
	if c.Missing == steps.FillDrop {
		l.selects(func() stage { return whole{columns} })
	}
	return l.learned(Learned{Fill: &learned}, changed...)
}

func (l *learner) sample(ctx context.Context, s steps.Sample) error {
	n, err := l.total(ctx)
	if err != nil {
		return err
	}
	keep := min(s.Rows, n)
	if s.Share > 0 {
		keep = int64(math.Round(s.Share * float64(n)))
	}
	l.selects(func() stage { return sampler{newDrawer(s.Seed, "sample", n, keep)} })
	return nil
}

func (l *learner) total(ctx context.Context) (n int64, err error) {
	err = read(ctx, l, func(r *rows) (int64, error) { return int64(r.Rows), nil }, func(part int64) error { n += part; return nil })
	return n, err
}

func (l *learner) split(ctx context.Context, s steps.Split) error {
	if s.Stratify != "" && l.field(s.Stratify) == nil {
		return mistake("split", "stratify: there is no column %q: there are %s", s.Stratify, names(l.fields))
	}
	counts := map[string]int64{}
	err := read(ctx, l, func(r *rows) (map[string]int64, error) {
		part := map[string]int64{}
		var c *table.Column
		if s.Stratify != "" {
			c = r.Column(s.Stratify)
		}
		for row := range r.Rows {
			part[stratum(c, row)]++
		}
		return part, nil
	}, func(part map[string]int64) error {
		for name, n := range part {
			counts[strings.Clone(name)] += n
		}
		if len(counts) > maxStrata {
			return mistake("split", "stratify: column %q has more than %d values: stratify by one with few", s.Stratify, maxStrata)
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.selects(func() stage { return newSplitter(s, counts) })
	return nil
}

func (l *learner) join(ctx context.Context, j steps.Join) error {
	if l.field(j.On) == nil {
		return mistake("join", "there is no column %q: there are %s", j.On, names(l.fields))
	}
	source, err := l.other(j.With)
	if err != nil {
		return err
	}
	if _, err := source.Infer(ctx, l.plan.Text...); err != nil {
		return mistake("join", "%s: %w", j.With, err)
	}
	for i, f := range source.Fields { // the keys of both must be of one kind to be equal
		if f.Name == j.On {
			source.Fields[i].Kind = l.field(j.On).Kind
		}
	}
	whole := table.NewBatch(source.Fields, 0)
	_, err = source.Each(ctx, func(b table.Batch) error {
		for i := range whole.Columns {
			whole.Columns[i].Numbers = append(whole.Columns[i].Numbers, b.Columns[i].Numbers...)
			whole.Columns[i].Texts = append(whole.Columns[i].Texts, b.Columns[i].Texts...)
		}
		whole.Rows += b.Rows
		return nil
	})
	if err != nil {
		return mistake("join", "%s: %w", j.With, err)
	}
	joined, err := newJoiner(j, whole)
	if err != nil {
		return err
	}
	l.selects(func() stage { return joined })
	probe := newRows(table.NewBatch(l.fields, 0))
	if err := joined.pass(probe); err != nil {
		return err
	}
	l.fields = probe.Fields()
	l.transform.Input = l.withoutLabel()
	return nil
}

func (l *learner) scale(ctx context.Context, s steps.Scale) error {
	columns, err := l.columns("scale", s.Columns, table.Number)
	if err != nil {
		return err
	}
	sums, err := l.summaries(ctx, columns)
	if err != nil {
		return err
	}
	low, high := -1.0, 1.0
	if len(s.To) == 2 {
		low, high = s.To[0], s.To[1]
	}
	learned := LearnedScale{Columns: columns}
	if !s.Standardize {
		learned.Shift = (low + high) / 2
	}
	for _, sum := range sums {
		offset, factor := sum.Mean, 0.0
		if d := sum.Deviation(); s.Standardize && d > 0 {
			factor = 1 / d
		}
		if !s.Standardize && sum.Count() > 0 {
			offset = sum.Min/2 + sum.Max/2
			if width := sum.Max/2 - sum.Min/2; width > 0 {
				factor = (high - low) / 2 / width
			}
		}
		learned.Offset, learned.Factor = append(learned.Offset, offset), append(learned.Factor, factor)
	}
	return l.learned(Learned{Scale: &learned}, columns...)
}

func (l *learner) oneHot(ctx context.Context, o steps.OneHot) error {
	columns, err := l.columns("one_hot", o.Columns, table.Text)
	if err != nil || len(columns) == 0 {
		return err
	}
	sums, err := l.summaries(ctx, columns)
	if err != nil {
		return err
	}
	limit := o.Limit
	if limit == 0 {
		limit = steps.DefaultValues
	}
	var learned []LearnedOneHot
	for _, s := range sums {
		one := LearnedOneHot{Column: s.Name}
		for _, v := range s.Values() {
			one.Values = append(one.Values, v.Text)
		}
		if len(one.Values) > limit {
			return mistake("one_hot", "column %q has %d values or more, and the limit is %d: drop the column, or raise the limit", s.Name, len(one.Values), limit)
		}
		slices.Sort(one.Values)
		learned = append(learned, one)
	}
	return l.learned(Learned{OneHot: learned}, columns...)
}

// moments are the count, the sums and the sums of products of columns.
type moments struct {
	n    float64
	mean []float64
	co   *mat.SymDense // sum of products of distances to the mean
}

func (m *moments) merge(o *moments) {
	if o.n == 0 {
		return
	}
	if m.n == 0 {
		*m = *o
		return
	}
	total := m.n + o.n
	delta := mat.NewVecDense(len(m.mean), nil)
	for i := range m.mean {
		delta.SetVec(i, o.mean[i]-m.mean[i])
		m.mean[i] += delta.AtVec(i) * o.n / total
	}
	m.co.AddSym(m.co, o.co)
	m.co.SymRankOne(m.co, m.n*o.n/total, delta)
	m.n = total
}

func (l *learner) pca(ctx context.Context, p steps.PCA) error {
	columns, err := l.columns("pca", p.Columns, table.Number)
	if err != nil {
		return err
	}
	if len(columns) > steps.MaxComponents || p.Components > len(columns) || len(columns) == 0 {
		return mistake("pca", "components: %d of %d columns: takes 1 to as many as there are columns, and at most %d columns", p.Components, len(columns), steps.MaxComponents)
	}
	total, parts := &moments{}, len(l.plan.Parts())
	err = read(ctx, l, func(r *rows) (*moments, error) { return momentsOf(r.of(0, parts), columns) }, func(m *moments) error {
		total.merge(m)
		return nil
	})
	if err != nil {
		return err
	}
	if total.n < 2 {
		return mistake("pca", "fewer than two rows to learn from")
	}
	learned, err := components(total, columns, p)
	if err != nil {
		return err
	}
	l.known = nil
	return l.learned(Learned{PCA: learned})
}

func momentsOf(b table.Batch, columns []string) (*moments, error) {
	m := &moments{n: float64(b.Rows), mean: make([]float64, len(columns)), co: mat.NewSymDense(len(columns), nil)}
	if b.Rows == 0 {
		return m, nil
	}
	centred := mat.NewDense(len(columns), b.Rows, nil)
	for i, name := range columns {
		row := centred.RawRowView(i)
		for k, v := range b.Column(name).Numbers {
			if math.IsNaN(v) {
				return nil, mistake("pca", "column %q has missing cells: clean it before", name)
			}
			m.mean[i] += v / float64(b.Rows)
			row[k] = v
		}
		for k := range row {
			row[k] -= m.mean[i]
		}
	}
	m.co.SymOuterK(1, centred)
	return m, nil
}

// components are the eigenvectors of the covariance, by falling eigenvalue. Their signs are such
// that the weight that is largest is positive.
func components(m *moments, columns []string, p steps.PCA) (*LearnedPCA, error) {
	var eigen mat.EigenSym
	if !eigen.Factorize(m.co, true) {
		return nil, mistake("pca", "the covariance has no eigenvectors: are there numbers of very different size? scale them before")
	}
	values := eigen.Values(nil) // rising
	var vectors mat.Dense
	eigen.VectorsTo(&vectors)
	sum := 0.0
	for _, v := range values {
		sum += max(v, 0)
	}
	learned := &LearnedPCA{Columns: columns, Mean: m.mean}
	kept := 0.0
	for k := len(values) - 1; k >= 0; k-- {
		if p.Components > 0 && len(learned.Components) == p.Components || p.Share > 0 && kept >= p.Share {
			break
		}
		share := 0.0
		if sum > 0 {
			share = max(values[k], 0) / sum
		}
		kept += share
		weights := mat.Col(nil, k, &vectors)
		largest := 0
		for i, w := range weights {
			if math.Abs(w) > math.Abs(weights[largest])*(1+1e-12) {
				largest = i
			}
		}
		if weights[largest] < 0 {
			for i := range weights {
				weights[i] = -weights[i]
			}
		}
		learned.Components, learned.Explained = append(learned.Components, weights), append(learned.Explained, share)
	}
	return learned, nil
}
