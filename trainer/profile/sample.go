package profile

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/trainer/table"
)

// sample is some of the rows that went by: those that drew the least numbers. Numbers are drawn in
// the order of the rows, so that the same table always has the same sample.
type sample struct {
	batch  table.Batch
	random *rand.PCG
	drawn  []uint64 // by row of the batch
	limit  uint64   // rows that drew more are not kept
}

func newSample(fields []table.Field) *sample {
	return &sample{batch: table.NewBatch(fields, 0), random: rand.NewPCG(0, 0), limit: math.MaxUint64}
}

func (s *sample) take(b table.Batch) {
	marked := make([]bool, b.Rows)
	any := false
	for row := range marked {
		if n := s.random.Uint64(); n <= s.limit {
			marked[row], any = true, true
			s.drawn = append(s.drawn, n)
		}
	}
	if !any {
		return
	}
	picked := b.Select(marked)
	for i := range s.batch.Columns {
		from, to := &picked.Columns[i], &s.batch.Columns[i]
		for _, text := range from.Texts {
			to.Texts = append(to.Texts, strings.Clone(text)) // a cell keeps all the text around it
		}
		to.Numbers = append(to.Numbers, from.Numbers...)
	}
	s.batch.Rows += picked.Rows
	for s.batch.Rows > MaxSample {
		s.halve()
	}
}

// halve keeps the rows that drew the lower half of the numbers.
func (s *sample) halve() {
	s.limit /= 2
	marked := make([]bool, s.batch.Rows)
	kept := s.drawn[:0]
	for row, n := range s.drawn {
		if n <= s.limit {
			marked[row] = true
			kept = append(kept, n)
		}
	}
	s.drawn = kept
	s.batch.Keep(marked)
}

// textsOf are a column's cells as texts.
func textsOf(c *table.Column) []string {
	if c.Kind == table.Text {
		return c.Texts
	}
	texts := make([]string, len(c.Numbers))
	for i, v := range c.Numbers {
		if v == v {
			texts[i] = strconv.FormatFloat(v, 'g', -1, 64)
		}
	}
	return texts
}
