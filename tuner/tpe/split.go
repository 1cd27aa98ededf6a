package tpe

import (
	"math"
	"slices"

	"github.com/clary-ml/clary/tuner"
)

// split is the fold over the trials that ended: the best mostGood, in order, and how many
// there are in all.
type split struct {
	read  int
	count int
	best  []tuner.Merit
	front front // with several objectives
}

func newSplit(h *tuner.History) split {
	return split{front: front{many: len(h.Problem().Objectives) > 1}}
}

func (s *split) catchUp(h *tuner.History) {
	ended := h.Ended()
	for ; s.read < len(ended); s.read++ {
		m, ok := h.MeritOf(int(ended[s.read]))
		if !ok {
			continue
		}
		s.count++
		if s.front.many {
			s.front.add(h, m)
		} else {
			s.best = enter(s.best, m)
		}
	}
}

// enter keeps the best mostGood sorted.
func enter(best []tuner.Merit, m tuner.Merit) []tuner.Merit {
	at, _ := slices.BinarySearchFunc(best, m, tuner.Merit.Compare)
	if at == mostGood {
		return best
	}
	best = slices.Insert(best, at, m)
	return best[:min(len(best), mostGood)]
}

// tells reports whether any trial says something about its configuration, be it one of an
// earlier sweep or one that has not ended.
func (s *split) tells(h *tuner.History) bool {
	return s.count+len(h.Prior()) > 0 || s.onTheirWay(h) && slices.ContainsFunc(h.Pending(), func(number int) bool { return len(h.Curve(number)) > 0 })
}

// onTheirWay reports whether trials count that have not ended.
func (s *split) onTheirWay(h *tuner.History) bool {
	return h.Problem().Fidelity.Max > 0 && !s.front.many
}

// good are the numbers of the best tenth of the trials, ascending. Those that have not ended
// count as far as their curves got.
func (s *split) good(h *tuner.History) []int {
	best, count := s.best, s.count
	if s.onTheirWay(h) {
		best = slices.Clone(best)
		for _, number := range h.Pending() {
			if m, ok := h.MeritOf(number); ok {
				best = enter(best, m)
				count++
			}
		}
	}
	n := min(int(math.Ceil(0.1*float64(count))), mostGood)
	if s.front.many {
		return s.front.best(h, n)
	}
	var numbers []int
	for _, m := range best[:min(n, len(best))] {
		if m.Measured() || len(numbers) == 0 {
			numbers = append(numbers, m.Number())
		}
	}
	slices.Sort(numbers)
	return numbers
}

// mixtures are the estimators of the good trials and of the others, pending ones among them.
func (s *split) mixtures(h *tuner.History) (good, others *mixture) {
	numbers := s.good(h)
	good = newMixture(h.Problem().Space, len(numbers))
	for _, number := range numbers {
		good.add(h.Config(number), 1)
	}
	rest := make([]int, 0, min(h.Len(), mostOthers))
	total := h.Len() - len(numbers)
	// Of very many, every so manieth is taken, and all of the last half.
	skip := max(1, int(math.Ceil(float64(total-mostOthers/2)/(mostOthers/2))))
	for number, at := 0, 0; number < h.Len(); number++ {
		if h.State(number) == tuner.Cancelled || len(numbers) > 0 && numbers[0] == number {
			if len(numbers) > 0 && numbers[0] == number {
				numbers = numbers[1:]
			}
			continue
		}
		if at++; skip == 1 || at%skip == 0 || total-at < mostOthers/2 {
			rest = append(rest, number)
		}
	}
	others = newMixture(h.Problem().Space, len(rest))
	for i, number := range rest {
		others.add(h.Config(number), age(i, len(rest)))
	}
	addPrior(h, good, others)
	good.finish()
	others.finish()
	return good, others
}

// age is the weight of trial i of n: the last 25 count whole, those before less the older
// they are.
func age(i, n int) float64 {
	const recent = 25
	if n <= recent || i >= n-recent {
		return 1
	}
	lowest := 1 / float64(n)
	return lowest + (1-lowest)*float64(i)/float64(max(n-recent-1, 1))
}

// addPrior adds the trials of earlier sweeps. All those of a part together weigh as much as
// so many own trials, and less the more own trials there are.
func addPrior(h *tuner.History, good, others *mixture) {
	const whole = 10
	sweeps := make(map[int][]tuner.Prior)
	for _, p := range h.Prior() {
		sweeps[p.Sweep] = append(sweeps[p.Sweep], p)
	}
	fading := whole / (whole + float64(h.Len()))
	for sweep := range len(h.Problem().Earlier) {
		trials := slices.Clone(sweeps[sweep])
		slices.SortStableFunc(trials, func(a, b tuner.Prior) int { return slices.Compare(a.Losses, b.Losses) })
		n := min(int(math.Ceil(0.1*float64(len(trials)))), mostGood)
		rest := trials[n:]
		if len(rest) > mostOthers {
			rest = rest[:mostOthers]
		}
		for _, p := range trials[:n] {
			good.add(p.Config, fading*min(1, whole/float64(n)))
		}
		for _, p := range rest {
			others.add(p.Config, fading*min(1, whole/float64(len(rest))))
		}
	}
}
