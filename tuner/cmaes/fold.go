package cmaes

import (
	"cmp"
	"math"
	"slices"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/chance"
	"github.com/clary-ml/clary/tuner/space"
)

// fold is the state over the events of the history.
type fold struct {
	seed     uint64
	dims     []space.Dim
	numeric  []int       // dimensions of the normal distribution
	nominal  []int       // dimensions of the categorical ones
	read     int         // events
	points   map[int]int // read, of each trial that has not ended
	batch    []member
	restarts uint64
	normal   *normal
	choices  [][]float64 // of each nominal dimension the probabilities
	progress progress
	x        []float64
	active   []bool
}

// member is a trial of the generation under way.
type member struct {
	merit  tuner.Merit
	y      []float64 // steps from the mean, in units of sigma
	levels []int     // of nominal dimensions; none if not active
}

const none = -1

// firstSigma is the spread of the first generation in [0,1].
const firstSigma = 0.2

func newFold(h *tuner.History) *fold {
	f := &fold{points: make(map[int]int), seed: h.Problem().Seed, dims: h.Problem().Space.Dims()}
	for i, d := range f.dims {
		if d.Kind == space.Nominal {
			f.nominal = append(f.nominal, i)
		} else {
			f.numeric = append(f.numeric, i)
		}
	}
	f.x, f.active = make([]float64, len(f.dims)), make([]bool, len(f.dims))
	mean := make([]float64, len(f.numeric))
	for i := range mean {
		mean[i] = 0.5
	}
	f.begin(mean)
	f.warm(h)
	return f
}

// begin starts afresh from a mean, with a population that doubles with each restart.
func (f *fold) begin(mean []float64) {
	population := 4 + int(3*math.Log(float64(max(len(f.dims), 1))))
	f.normal = newNormal(mean, firstSigma, population<<min(f.restarts, 8))
	f.choices = make([][]float64, len(f.nominal))
	for k, i := range f.nominal {
		f.choices[k] = make([]float64, f.dims[i].Levels)
		for level := range f.choices[k] {
			f.choices[k][level] = 1 / float64(f.dims[i].Levels)
		}
	}
	f.batch, f.progress = nil, progress{}
}

// catchUp reads ends, and points of curves: a trial that goes on is in each generation during
// which it came further, so that promoted ones pull again.
func (f *fold) catchUp(h *tuner.History) {
	for ; f.read < h.Events(); f.read++ {
		number, ended := h.Event(f.read)
		points := f.points[number]
		switch {
		case ended:
			delete(f.points, number)
			// The last point of one that was stopped is in.
			if merit, ok := h.MeritOf(number); ok && (points == 0 || h.State(number) != tuner.Stopped) {
				f.enter(h, merit)
			}
		case h.Problem().Fidelity.Max > 0:
			f.points[number] = points + 1
			f.enter(h, h.MeritAt(number, points))
		}
	}
}

func (f *fold) enter(h *tuner.History, merit tuner.Merit) {
	f.batch = slices.DeleteFunc(f.batch, func(m member) bool { return m.merit.Number() == merit.Number() })
	if f.batch = append(f.batch, member{merit: merit}); len(f.batch) == f.normal.population {
		f.generation(h)
	}
}

// generation moves the distributions towards the better half of the batch.
func (f *fold) generation(h *tuner.History) {
	batch := f.batch
	f.batch = nil
	slices.SortFunc(batch, func(a, b member) int { return a.merit.Compare(b.merit) })
	if !batch[0].merit.Measured() {
		return // all failed: nothing to move to
	}
	steps := make([][]float64, len(batch))
	for i := range batch {
		f.locate(h, &batch[i])
		steps[i] = batch[i].y
	}
	f.normal.update(steps)
	f.normal.keepMargins(f.cells, 1/float64(max(len(f.dims), 1)*f.normal.population))
	f.moveChoices(batch)
	f.progress.add(batch)
	if f.normal.spent() || f.progress.stands(len(f.dims), f.normal.population) {
		f.restarts++
		mean := make([]float64, len(f.numeric))
		r := chance.New(f.seed, 'c', 'm', 'a', 'r', f.restarts)
		for i := range mean {
			mean[i] = r.Float64()
		}
		f.begin(mean)
	}
}

// locate finds where a trial lies as seen from the distribution. Of a level it is known
// only in which cell it lay, of a dimension that was not active nothing: that is drawn as
// the distribution has it.
func (f *fold) locate(h *tuner.History, m *member) {
	h.Problem().Space.Encode(h.Config(m.merit.Number()), f.x, f.active)
	r := chance.New(f.seed, 'c', 'm', 'a', 'l', uint64(m.merit.Number()))
	m.y = make([]float64, len(f.numeric))
	for j, i := range f.numeric {
		d, from, to := f.dims[i], math.Inf(-1), math.Inf(1)
		if f.active[i] && d.Levels == 0 {
			m.y[j] = (f.x[i] - f.normal.mean[j]) / f.normal.sigma
			continue
		}
		if f.active[i] {
			from, to = openCell(d, d.Nearest(f.x[i]))
		}
		m.y[j] = f.normal.drawWithin(r, j, from, to)
	}
	m.levels = make([]int, len(f.nominal))
	for k, i := range f.nominal {
		if m.levels[k] = none; f.active[i] {
			m.levels[k] = f.dims[i].Nearest(f.x[i])
		}
	}
}

// openCell is the cell of a level, the outer ones without an end.
func openCell(d space.Dim, level int) (from, to float64) {
	from, to = d.Cell(level)
	if level == 0 {
		from = math.Inf(-1)
	}
	if level == d.Levels-1 {
		to = math.Inf(1)
	}
	return from, to
}

// cells is the cell that coordinate x of numeric dimension j lies in; ok is false if it has
// no levels.
func (f *fold) cells(j int, x float64) (from, to float64, ok bool) {
	d := f.dims[f.numeric[j]]
	if d.Levels == 0 {
		return 0, 0, false
	}
	from, to = openCell(d, d.Nearest(min(max(x, 0), 1)))
	return from, to, true
}

// choiceRate is how fast the categorical distributions learn.
const choiceRate = 0.4

// moveChoices goes from the categorical distributions towards the frequencies among the
// better half. No choice falls below a margin.
func (f *fold) moveChoices(batch []member) {
	for k, i := range f.nominal {
		levels := f.dims[i].Levels
		seen, total := make([]float64, levels), 0.0
		for rank, weight := range f.normal.positive {
			if level := batch[rank].levels[k]; level != none {
				seen[level] += weight
				total += weight
			}
		}
		if total == 0 {
			continue
		}
		// The chance that nothing changes in a draw stays below 0.73.
		margin := (1 - math.Pow(0.73, 1/float64(len(f.nominal)))) / float64(levels-1)
		margin = min(margin, 1/float64(levels))
		q, sum := f.choices[k], 0.0
		for level := range q {
			q[level] = max(q[level]+choiceRate*(seen[level]/total-q[level]), margin)
			sum += q[level]
		}
		for level := range q {
			q[level] /= sum
		}
	}
}

// draw writes a point of the distributions, the normal one so many times as wide.
func (f *fold) draw(r *chance.Rand, x []float64, wide float64) {
	f.normal.draw(r, wide, func(j int, v float64) { x[f.numeric[j]] = v })
	for k, i := range f.nominal {
		u, level := r.Float64(), 0
		for ; level < f.dims[i].Levels-1 && u >= f.choices[k][level]; level++ {
			u -= f.choices[k][level]
		}
		x[i] = f.dims[i].At(level)
	}
}

// warm begins where the best tenth of earlier trials lay.
func (f *fold) warm(h *tuner.History) {
	const least = 10 // trials that say something
	sweeps := make(map[int][]tuner.Prior)
	for _, p := range h.Prior() {
		sweeps[p.Sweep] = append(sweeps[p.Sweep], p)
	}
	var points [][]float64
	for sweep := range len(h.Problem().Earlier) {
		trials := sweeps[sweep]
		if len(trials) < least {
			continue
		}
		slices.SortStableFunc(trials, func(a, b tuner.Prior) int { return cmp.Compare(a.Losses[0], b.Losses[0]) })
		for _, p := range trials[:(len(trials)+9)/10] {
			h.Problem().Space.Encode(p.Config, f.x, f.active)
			point := make([]float64, len(f.numeric))
			for j, i := range f.numeric {
				point[j] = f.x[i]
			}
			points = append(points, point)
			for k, i := range f.nominal {
				if f.active[i] {
					f.choices[k][f.dims[i].Nearest(f.x[i])] += 1 / float64(f.dims[i].Levels)
				}
			}
		}
	}
	for _, q := range f.choices {
		sum := 0.0
		for _, p := range q {
			sum += p
		}
		for level := range q {
			q[level] /= sum
		}
	}
	if len(points) > 0 {
		f.normal.gather(points)
	}
}
