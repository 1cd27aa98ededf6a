package tuner

import (
	"cmp"
	"math"
	"slices"
)

// Front are the complete trials within all limits that no other dominates, ascending by
// number; of equal ones the first. With one objective that is the best trial.
func (h *History) Front() []int {
	var front []int
	for number, state := range h.states {
		if state != Complete || h.Excess(number) > 0 {
			continue
		}
		covered := slices.ContainsFunc(front, func(other int) bool { return h.covers(other, number) })
		if !covered {
			front = slices.DeleteFunc(front, func(other int) bool { return h.covers(number, other) })
			front = append(front, number)
		}
	}
	return front
}

// covers reports that a is at least as good as b in every objective.
func (h *History) covers(a, b int) bool {
	for i := range h.problem.Objectives {
		if h.Loss(a, i) > h.Loss(b, i) {
			return false
		}
	}
	return true
}

// Foremost are the n best of complete trials by the order of NSGA-II (Deb, Pratap, Agarwal
// and Meyarivan, IEEE Trans. Evol. Comput. 6, 2002): those within the limits before others;
// then by how many layers of the front lie before them; within a layer the loneliest first.
func (h *History) Foremost(numbers []int, n int) []int {
	var within, outside []int
	for _, number := range numbers {
		if h.Excess(number) > 0 {
			outside = append(outside, number)
		} else {
			within = append(within, number)
		}
	}
	slices.SortFunc(outside, func(a, b int) int {
		return cmp.Or(cmp.Compare(h.Excess(a), h.Excess(b)), cmp.Compare(a, b))
	})
	chosen := make([]int, 0, min(n, len(numbers)))
	for len(chosen) < n && len(within) > 0 {
		var layer, rest []int
		for _, a := range within {
			if slices.ContainsFunc(within, func(b int) bool { return h.dominates(b, a) }) {
				rest = append(rest, a)
			} else {
				layer = append(layer, a)
			}
		}
		if len(layer) > n-len(chosen) {
			layer = h.loneliest(layer)
		}
		chosen = append(chosen, layer...)
		within = rest
	}
	chosen = append(chosen, outside...)
	return chosen[:min(n, len(chosen))]
}

// loneliest sorts a layer by crowding distance, those at the ends of an objective first.
// Distances are in shares of the layer, so that the scale of an objective does not matter.
func (h *History) loneliest(layer []int) []int {
	distance := make(map[int]float64, len(layer))
	for i := range h.problem.Objectives {
		sorted := slices.Clone(layer)
		slices.SortFunc(sorted, func(a, b int) int {
			return cmp.Or(cmp.Compare(h.Loss(a, i), h.Loss(b, i)), cmp.Compare(a, b))
		})
		span := h.Loss(sorted[len(sorted)-1], i) - h.Loss(sorted[0], i)
		for k, number := range sorted {
			switch {
			case k == 0 || k == len(sorted)-1:
				distance[number] = math.Inf(1)
			case span > 0:
				distance[number] += h.Loss(sorted[k+1], i)/span - h.Loss(sorted[k-1], i)/span
			}
		}
	}
	sorted := slices.Clone(layer)
	slices.SortFunc(sorted, func(a, b int) int {
		return cmp.Or(cmp.Compare(distance[b], distance[a]), cmp.Compare(a, b))
	})
	return sorted
}
