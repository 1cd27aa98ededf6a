package prepare

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strconv"
	"unsafe"

	"github.com/zeebo/xxh3"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/trainer/table"
)

// rows are a batch on its way, each row with its part.
type rows struct {
	table.Batch
	part []uint8
}

func newRows(b table.Batch) *rows { return &rows{Batch: b, part: make([]uint8, b.Rows)} }

func (r *rows) keep(marked []bool) {
	kept := r.part[:0]
	for i, p := range r.part {
		if marked[i] {
			kept = append(kept, p)
		}
	}
	r.part = kept
	r.Keep(marked)
}

// of are the rows of one part.
func (r *rows) of(part int, parts int) table.Batch {
	if parts == 1 {
		return r.Batch
	}
	marked := make([]bool, r.Rows)
	for i, p := range r.part {
		marked[i] = int(p) == part
	}
	return r.Select(marked)
}

// stage is one thing done to the rows of one reading, in their order.
type stage interface{ pass(r *rows) error }

// alone is a stage that changes each batch for itself.
type alone struct{ operation }

func (a alone) pass(r *rows) error { return a.apply(&r.Batch) }

// dedupe drops rows that were there before.
type dedupe struct{ seen map[xxh3.Uint128]struct{} }

func newDedupe() *dedupe { return &dedupe{seen: map[xxh3.Uint128]struct{}{}} }

func (d *dedupe) pass(r *rows) error {
	marked := make([]bool, r.Rows)
	var text []byte
	for row := range r.Rows {
		text = text[:0]
		for i := range r.Columns {
			text = append(appendCell(text, &r.Columns[i], row), 0)
		}
		sum := xxh3.Hash128(text)
		if _, again := d.seen[sum]; !again {
			d.seen[sum] = struct{}{}
			marked[row] = true
		}
	}
	r.keep(marked)
	return nil
}

// appendCell appends a cell so that different ones differ.
func appendCell(text []byte, c *table.Column, row int) []byte {
	if c.Kind == table.Number {
		return strconv.AppendUint(text, math.Float64bits(c.Numbers[row]), 36)
	}
	cell := c.Texts[row]
	text = strconv.AppendInt(text, int64(len(cell)), 10)
	return append(append(text, ':'), unsafe.Slice(unsafe.StringData(cell), len(cell))...)
}

// whole drops rows with a missing cell in the columns.
type whole struct{ columns []string }

func (w whole) pass(r *rows) error {
	marked := make([]bool, r.Rows)
	for row := range marked {
		marked[row] = true
	}
	for _, name := range w.columns {
		c := r.Column(name)
		for row := range marked {
			marked[row] = marked[row] && !c.Missing(row)
		}
	}
	r.keep(marked)
	return nil
}

// within drops rows with an outlier.
type within struct{ LearnedClip }

func (w within) pass(r *rows) error {
	marked := make([]bool, r.Rows)
	for row := range marked {
		marked[row] = true
	}
	for i, name := range w.Columns {
		for row, v := range r.Column(name).Numbers {
			marked[row] = marked[row] && !(v < w.Low[i] || v > w.High[i])
		}
	}
	r.keep(marked)
	return nil
}

// drawer deals n rows to groups of so many each, one after another, every way to do so being as
// likely (selection sampling: Knuth, TAOCP 2, 3.4.2, algorithm S). What is left is group 0.
type drawer struct {
	random *rand.Rand
	left   int64
	quota  []int64 // of groups 1, 2, …
}

func newDrawer(seed uint64, name string, n int64, quota ...int64) *drawer {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return &drawer{random: rand.New(rand.NewPCG(seed, h.Sum64())), left: n, quota: quota}
}

func (d *drawer) draw() (group int, err error) {
	if d.left <= 0 {
		return 0, fault.New(fault.Conflict, "the input has more rows than a moment ago: is it still being written?")
	}
	at := d.random.Int64N(d.left)
	d.left--
	for i := range d.quota {
		if at < d.quota[i] {
			d.quota[i]--
			return i + 1, nil
		}
		at -= d.quota[i]
	}
	return 0, nil
}

// sampler keeps the rows of group 1.
type sampler struct{ *drawer }

func (s sampler) pass(r *rows) error {
	marked := make([]bool, r.Rows)
	for row := range marked {
		group, err := s.draw()
		if err != nil {
			return err
		}
		marked[row] = group == 1
	}
	r.keep(marked)
	return nil
}

// splitter deals rows to parts, those of each stratum apart.
type splitter struct {
	column string
	strata map[string]*drawer
}

const maxStrata = 10_000

// newSplitter takes how many rows each stratum has.
func newSplitter(s steps.Split, counts map[string]int64) *splitter {
	out := &splitter{column: s.Stratify, strata: map[string]*drawer{}}
	for name, n := range counts {
		var quota []int64
		for _, share := range []float64{s.Validation, s.Test} {
			if share > 0 {
				quota = append(quota, int64(math.Round(share*float64(n))))
			}
		}
		if len(quota) == 2 { // of a stratum of one row both may round up
			quota[1] = min(quota[1], n-quota[0])
		}
		out.strata[name] = newDrawer(s.Seed, name, n, quota...)
	}
	return out
}

func (s *splitter) pass(r *rows) error {
	var c *table.Column
	if s.column != "" {
		c = r.Column(s.column)
	}
	for row := range r.Rows {
		d := s.strata[stratum(c, row)]
		if d == nil {
			return fault.New(fault.Conflict, "the input has other values in %q than a moment ago: is it still being written?", s.column)
		}
		group, err := d.draw()
		if err != nil {
			return err
		}
		r.part[row] = uint8(group)
	}
	return nil
}

// stratum names what a row belongs to; nil is no column.
func stratum(c *table.Column, row int) string {
	switch {
	case c == nil:
		return ""
	case c.Kind == table.Number:
		return strconv.FormatFloat(c.Numbers[row], 'g', -1, 64)
	}
	return c.Texts[row]
}

// joiner adds the columns of the second table.
type joiner struct {
	on      string
	keep    bool
	at      map[string]int // row of the second table by key
	columns []table.Column
}

func newJoiner(j steps.Join, b table.Batch) (*joiner, error) {
	key := b.Column(j.On)
	if key == nil {
		return nil, fault.New(fault.Invalid, "join: the table %q has no column %q", j.With, j.On)
	}
	out := &joiner{on: j.On, keep: j.Keep, at: make(map[string]int, b.Rows)}
	for row := range b.Rows {
		if key.Missing(row) {
			continue
		}
		text := stratum(key, row)
		if _, twice := out.at[text]; twice {
			return nil, fault.New(fault.Invalid, "join: the table %q has two rows with %q in %q: a key must be of one row", j.With, text, j.On)
		}
		out.at[text] = row
	}
	for _, c := range b.Columns {
		if c.Name != j.On {
			out.columns = append(out.columns, c)
		}
	}
	return out, nil
}

func (j *joiner) pass(r *rows) error {
	key := r.Column(j.on)
	marked, from := make([]bool, r.Rows), make([]int, r.Rows)
	for row := range r.Rows {
		at, found := j.at[stratum(key, row)]
		found = found && !key.Missing(row)
		marked[row], from[row] = found || j.keep, at
		if !found {
			from[row] = -1
		}
	}
	for _, c := range j.columns {
		if r.Column(c.Name) != nil {
			return fault.New(fault.Invalid, "join: both tables have a column %q: drop or rename one", c.Name)
		}
		added := table.Column{Field: c.Field}
		for _, at := range from {
			if c.Kind == table.Number {
				v := math.NaN()
				if at >= 0 {
					v = c.Numbers[at]
				}
				added.Numbers = append(added.Numbers, v)
				continue
			}
			text := ""
			if at >= 0 {
				text = c.Texts[at]
			}
			added.Texts = append(added.Texts, text)
		}
		r.Columns = append(r.Columns, added)
	}
	r.keep(marked)
	return nil
}

func mistake(step, format string, args ...any) error {
	return fault.New(fault.Invalid, "%s: %w", step, fmt.Errorf(format, args...))
}
