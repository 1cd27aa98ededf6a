// Package evict chooses which running gangs are stopped so that another finds room: those whose stopping
// loses the least work, and no more of them than it takes. It is pure, and knows neither queues nor the
// rules that say who may be stopped for whom: its callers hand it those that may. See DESIGN.md.
package evict

import (
	"cmp"
	"math"
	"slices"

	"github.com/clary-ml/clary/cluster"
)

// Candidate is a running gang that may be stopped.
type Candidate struct {
	ID          string
	Cost        int64 // what stopping it loses: see Cost
	Elastic     bool  // runs with more tasks than it must have: it goes on with fewer
	Started     int64
	Allocations []cluster.Allocation
}

// Room is where victims are tried: what is given can be undone.
type Room[Mark any] interface {
	Mark() Mark
	Rollback(to Mark)
	Vacate(id string, allocations []cluster.Allocation) // as if the gang had ended
}

// Choose picks victims among the candidates, so that what is asked for fits: of the elastic ones alone if they
// suffice, else of all. Fits says whether it does, with the room of those victims given back, and leaves the room
// as it found it; it must not turn to no when more is given. None of the victims can be spared: without any one of
// them it does not fit. The answer is nil if stopping all candidates would not help.
//
// Which set is cheapest is a covering problem, and hard; two orders are tried, and of the two sets that they
// lead to the cheaper one is taken: the cheapest first, and node by node, the cheapest first, which is better
// where one node must be emptied. In an order, the set is the one that is left when candidates are spared from
// the last to the first as long as it still fits (as Kueue does), found with QuickXplain (Junker, AAAI 2004):
// k of n need some k·log(n/k) questions instead of n.
//
// Limit, if it is not nil, is asked of every candidate in an order before it counts as one, and is told with
// begin before each order: so it may allow so much of a queue to be stopped and no more.
func Choose[Mark any](room Room[Mark], candidates []Candidate, fits func(victims []*Candidate) bool, limit Limit) []*Candidate {
	elastic := make([]*Candidate, 0, len(candidates))
	all := make([]*Candidate, 0, len(candidates))
	for i := range candidates {
		all = append(all, &candidates[i])
		if candidates[i].Elastic {
			elastic = append(elastic, &candidates[i])
		}
	}
	if len(elastic) > 0 && len(elastic) < len(all) {
		if victims := cheapest(room, elastic, fits, limit); victims != nil {
			return victims
		}
	}
	return cheapest(room, all, fits, limit)
}

// Limit says how many candidates may go together.
type Limit interface {
	Begin()
	Allow(c *Candidate) bool
}

func cheapest[Mark any](room Room[Mark], candidates []*Candidate, fits func([]*Candidate) bool, limit Limit) []*Candidate {
	var best []*Candidate
	cost := int64(math.MaxInt64)
	for _, order := range [][]*Candidate{byCost(candidates), byNode(candidates)} {
		if limit != nil {
			limit.Begin()
			order = slices.DeleteFunc(order, func(c *Candidate) bool { return !limit.Allow(c) })
		}
		s := search[Mark]{room: room, fits: fits}
		if victims := s.minimal(order); victims != nil && Sum(victims) < cost {
			best, cost = victims, Sum(victims)
		}
	}
	return best
}

// first orders candidates: elastic ones, then what costs least, then who started last.
func first(a, b *Candidate) int {
	return cmp.Or(flag(b.Elastic)-flag(a.Elastic), cmp.Compare(a.Cost, b.Cost), cmp.Compare(b.Started, a.Started), cmp.Compare(a.ID, b.ID))
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func byCost(candidates []*Candidate) []*Candidate {
	return slices.SortedFunc(slices.Values(candidates), first)
}

// byNode orders by what it costs to empty the node, of the nodes that a gang is on the one that costs least.
func byNode(candidates []*Candidate) []*Candidate {
	costs := map[string]int64{}
	for _, c := range candidates {
		counted := map[string]bool{}
		for _, a := range c.Allocations {
			if !counted[a.Node] {
				counted[a.Node], costs[a.Node] = true, add(costs[a.Node], c.Cost)
			}
		}
	}
	type place struct {
		*Candidate
		cost int64
		node string
	}
	places := make([]place, len(candidates))
	for i, c := range candidates {
		places[i] = place{Candidate: c, cost: math.MaxInt64}
		for _, a := range c.Allocations {
			if cost := costs[a.Node]; cost < places[i].cost || cost == places[i].cost && a.Node < places[i].node {
				places[i].cost, places[i].node = cost, a.Node
			}
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.node, b.node), first(a.Candidate, b.Candidate))
	})
	order := make([]*Candidate, len(places))
	for i := range places {
		order[i] = places[i].Candidate
	}
	return order
}

// search finds a minimal set; stopped are those whose room is given at the moment.
type search[Mark any] struct {
	room    Room[Mark]
	fits    func([]*Candidate) bool
	stopped []*Candidate
}

func (s *search[Mark]) minimal(order []*Candidate) []*Candidate {
	if len(order) == 0 || !s.with(order, s.fit) {
		return nil
	}
	victims := s.needed(false, order)
	slices.SortFunc(victims, first)
	return victims
}

func (s *search[Mark]) fit() bool { return s.fits(s.stopped) }

// with answers a question as if these were stopped too.
func (s *search[Mark]) with(more []*Candidate, question func() bool) bool {
	defer s.undo(s.room.Mark(), len(s.stopped))
	s.give(more)
	return question()
}

func (s *search[Mark]) give(more []*Candidate) {
	for _, c := range more {
		s.room.Vacate(c.ID, c.Allocations)
	}
	s.stopped = append(s.stopped, more...)
}

func (s *search[Mark]) undo(mark Mark, stopped int) {
	s.room.Rollback(mark)
	s.stopped = s.stopped[:stopped]
}

// needed are those of the order that must be stopped besides the stopped ones, all of it being enough. Asked
// says that some were stopped since it was last known not to fit.
func (s *search[Mark]) needed(asked bool, order []*Candidate) []*Candidate {
	if asked && s.fit() {
		return nil
	}
	if len(order) == 1 {
		return order
	}
	cheap, dear := order[:len(order)/2], order[len(order)/2:]
	mark, stopped := s.room.Mark(), len(s.stopped)
	s.give(cheap)
	of := s.needed(true, dear)
	s.undo(mark, stopped)
	mark = s.room.Mark()
	s.give(of)
	of = append(slices.Clip(s.needed(len(of) > 0, cheap)), of...)
	s.undo(mark, stopped)
	return of
}
