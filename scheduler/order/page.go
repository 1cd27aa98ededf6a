package order

import (
	"cmp"
	"slices"
)

// Page is what a history knows of one class.
type Page struct {
	Class          string
	Through, Ended []int32 // jobs, by bin of the time that they had run
	Seen           int64
	Curve          []int64 // how progress goes, by mark: sums over Reported jobs
	Reported       int64
}

// Pages are the classes that the history knows anything of, those that were used least lately first.
func (h *History) Pages() []Page {
	pages := make([]Page, 0, len(h.classes))
	for name, c := range h.classes { // sorted below
		if c.seen == 0 && c.curve.n == 0 {
			continue // it was asked about
		}
		pages = append(pages, Page{
			Class: name, Through: slices.Clone(c.through[:]), Ended: slices.Clone(c.ended[:]), Seen: c.seen,
			Curve: slices.Clone(c.curve.sum[:]), Reported: c.curve.n,
		})
	}
	slices.SortFunc(pages, func(a, b Page) int {
		return cmp.Or(cmp.Compare(h.classes[a.Class].used, h.classes[b.Class].used), cmp.Compare(a.Class, b.Class))
	})
	return pages
}

// HistoryOf makes a history that knows what another knew. What a page has too much of is left out.
func HistoryOf(pages []Page) *History {
	h := NewHistory()
	for _, p := range pages {
		c := h.class(p.Class)
		copy(c.through[:], p.Through)
		copy(c.ended[:], p.Ended)
		copy(c.curve.sum[:], p.Curve)
		c.seen, c.curve.n = p.Seen, p.Reported
	}
	return h
}
