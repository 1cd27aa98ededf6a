package tpe

import (
	"slices"

	"github.com/clary-ml/clary/tuner"
)

// front keeps the trials of a search with several objectives that may be among the good.
type front struct {
	many bool
	kept []int // complete
}

// Trials beyond keepMost are sorted out, down to keepLeast.
const keepLeast, keepMost = 100, 300

func (f *front) add(h *tuner.History, m tuner.Merit) {
	if h.State(m.Number()) != tuner.Complete {
		return
	}
	f.kept = append(f.kept, m.Number())
	if len(f.kept) > keepMost {
		f.kept = h.Foremost(f.kept, keepLeast)
	}
}

// best are the n best trials, ascending.
func (f *front) best(h *tuner.History, n int) []int {
	chosen := h.Foremost(f.kept, n)
	slices.Sort(chosen)
	return chosen
}
