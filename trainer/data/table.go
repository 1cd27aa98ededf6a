package data

import (
	"math/rand/v2"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
)

// maxValues bounds what one process keeps: 2^30 values are 4 GiB.
const maxValues = 1 << 30

// Table is rows of features, row-major, with a label each: the class number, or the
// target value of a regression.
type Table struct {
	Width    int
	Features []float32
	Labels   []float32
}

// Rows is the number of rows.
func (t *Table) Rows() int { return len(t.Labels) }

// Row returns the features of one row; it is a part of the table, not a copy.
func (t *Table) Row(i int) []float32 { return t.Features[i*t.Width : (i+1)*t.Width] }

func (t *Table) add(features []float32, label float32) error {
	if len(t.Features)+len(features) > maxValues {
		return fault.New(fault.Exhausted, "the data has more than %d values for one worker: use more workers or fewer rows", maxValues)
	}
	t.Features = append(t.Features, features...)
	t.Labels = append(t.Labels, label)
	return nil
}

// Layout says how files become rows of one network.
type Layout struct {
	spec.Data
	// Width is the number of features of a row.
	Width int
	// ClassCount is the number of classes, or 0 where labels are any number.
	ClassCount int
	// Unlabelled rows have features alone; their label is read as 0.
	Unlabelled bool
}

// LayoutFor returns the layout that a run's data must have.
func LayoutFor(d spec.Data, plan spec.Plan) Layout {
	l := Layout{Data: d, Width: spec.Volume(plan.Input)}
	if plan.Loss != spec.MeanSquaredError {
		l.ClassCount = max(plan.Outputs, 2)
	}
	return l
}

func (l Layout) scale() float32 {
	if l.Scale == 0 {
		return 1
	}
	return float32(1 / l.Scale)
}

// Split says which rows of a training channel a worker trains on. It is a pure function
// of the row's number, so that rows can be dealt while they stream past.
type Split struct {
	Seed int64
	// Fraction of the rows is held out for validation.
	Fraction float64
	// Worker of Workers gets every Workers-th training row.
	Worker, Workers int
	// KeepValidation is set where the held-out rows are wanted, not only left out.
	KeepValidation bool
}

// HeldOut reports whether the row with that number is for validation.
func (s Split) HeldOut(row int) bool {
	if s.Fraction <= 0 {
		return false
	}
	return float64(mix(uint64(s.Seed)^mix(uint64(row)+1))>>11)/(1<<53) < s.Fraction
}

// mix is the finaliser of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom
// Number Generators, OOPSLA 2014, figure 17).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Shard is what one worker reads from the training channel.
type Shard struct {
	Train Table
	// Validation has the held-out rows where they were asked for.
	Validation Table
	// TrainRows counts the training rows of all workers together.
	TrainRows int
}

// deal puts one row where the split says.
func (s *Shard) deal(split Split, row int, features []float32, label float32) error {
	if split.HeldOut(row) {
		if split.KeepValidation {
			return s.Validation.add(features, label)
		}
		return nil
	}
	s.TrainRows++
	if (s.TrainRows-1)%max(split.Workers, 1) != split.Worker {
		return nil
	}
	return s.Train.add(features, label)
}

// Order returns the order in which a worker visits its rows in an epoch. It depends on
// nothing but its arguments.
func Order(rows int, seed int64, worker, epoch int) []int {
	r := rand.New(rand.NewPCG(mix(uint64(seed)), mix(uint64(worker)<<32|uint64(uint32(epoch)))))
	order := make([]int, rows)
	for i := range order {
		order[i] = i
	}
	for i := rows - 1; i > 0; i-- {
		j := int(r.Uint64N(uint64(i + 1)))
		order[i], order[j] = order[j], order[i]
	}
	return order
}
