package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// reserveEvery is how often it is worked out for an ask in vain when its room will be free, whatever happens meanwhile.
const reserveEvery = 10 * time.Second

// reserve keeps room for an ask: that which will be free first, by what is known of what runs. Where nobody
// knows when, it lets others overtake for a while before. What is kept stays kept until it is placed or no longer
// first: time that goes by brings it nearer.
func (r *round) reserve(w *waiter) {
	if h := r.holds[w.ID]; h != nil {
		h.seen = true
		if due := h.due(w); due > r.now || h.at == r.now {
			r.recall(due)
			return
		}
		h.seen = false
	} else if len(r.holds) >= maxHolds && len(r.younger(w)) == 0 {
		return
	}
	if r.vain(w.keep) {
		return
	}
	if next := w.keep.at + int64(reserveEvery); w.keep.at > 0 && next > r.now && r.holds[w.ID] == nil {
		r.recall(next)
		return
	}
	until, allocations, endless := r.earliest(w)
	if allocations == nil {
		w.keep = look{r.moves, r.now, never}
		return
	}
	if patient := w.since + int64(r.opts.Patience); until == never && patient > r.now {
		w.keep = look{r.moves, r.now, patient}
		r.recall(patient)
		return
	}
	if until == never {
		if again := r.keeps(w, endless, nodesOf(allocations)); again > 0 {
			w.keep = look{r.moves, r.now, again}
			return
		}
	}
	for _, a := range allocations {
		for _, h := range r.younger(w) {
			if _, on := slices.BinarySearch(h.nodes, a.Node); on {
				r.unhold(h.id)
			}
		}
	}
	if r.holds[w.ID] == nil && len(r.holds) >= maxHolds {
		r.unholdYoungest(w)
	}
	h := &hold{id: w.ID, until: until, at: r.now, since: w.since, seen: true}
	r.hold(h, allocations)
	r.recall(h.due(w))
}

// due is when it is worked out anew what is kept for an ask.
func (h *hold) due(w *waiter) int64 {
	if h.until == never {
		return w.spell.until
	}
	return h.until
}

// spell is how long something is kept for an ask of which nobody knows when it can use it, and then, if what it waits for
// may never end, for how long it is not.
type spell struct {
	lasts int64
	until int64
	rests bool
}

// firstSpell is how long the first spell lasts. Each is twice as long as the one before: so what waits for jobs that end, however
// long they take, gets on in a few times as long, and what is kept below those that never end lies idle for half of the time at the most.
const firstSpell = time.Hour

// keeps is 0 if something is kept for an ask of which nobody knows when it can use it, or else when to ask again. Endless says that what it waits
// for was there before it, has been for long, or may not be stopped; then what is kept, nodes or a limit, rests after each spell whoever else would have
// it kept: or the first of several queues would take turns, and it never rested.
func (r *round) keeps(w *waiter, endless bool, what []string) (again int64) {
	for _, name := range what {
		if endless {
			again = max(again, r.rests[name])
		}
	}
	if again > r.now {
		r.recall(again)
		return again
	}
	s := &w.spell
	switch {
	case s.lasts == 0:
		*s = spell{lasts: int64(firstSpell), until: r.now + int64(firstSpell)}
	case r.now < s.until:
	case endless && !s.rests:
		s.rests, s.until = true, r.now+s.lasts
		maps.DeleteFunc(r.rests, func(_ string, until int64) bool { return until <= r.now })
		if h := r.holds[w.ID]; h != nil {
			what = append(what, h.nodes...)
		}
		for _, name := range what {
			r.rests[name] = s.until
		}
	default:
		s.lasts *= 2
		s.rests, s.until = false, r.now+s.lasts
	}
	r.recall(s.until)
	if s.rests {
		return s.until
	}
	return 0
}

// endless reports whether an ask that waits for this to end may do so for ever: it was there before, or has been for long.
func (e *end) endless(w *waiter) bool {
	return e.at == never && (e.late >= long || e.run.Started < w.since)
}

// younger are the holds of those that have waited for less long than an ask. They stand back: so the one that has waited
// longest always finds room in the end, however many others wait beside it.
func (r *round) younger(w *waiter) []*hold {
	return slices.DeleteFunc(slices.Clone(r.held()), func(h *hold) bool {
		return h.made || h.since < w.since || h.since == w.since && h.id <= w.ID
	})
}

// unholdYoungest gives up the youngest of the holds that are younger than an ask which has a hold to make: only then, or the two
// would take turns for ever.
func (r *round) unholdYoungest(w *waiter) {
	youngest := slices.MaxFunc(r.younger(w), func(a, b *hold) int { return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.id, b.id)) })
	r.unhold(youngest.id)
}

// earliest is when an ask would find room if nothing else were placed, and where; nil if it never would. What is kept for
// those that have waited for longer is not to be had. Endless says that it may be for ever until then.
func (r *round) earliest(w *waiter) (until int64, allocations []cluster.Allocation, endless bool) {
	if r.ends == nil {
		r.ends = r.Cluster.ends(r.now)
	}
	mark := r.Room.Mark()
	defer r.Room.Rollback(mark)
	r.Room.Unpin(w.ID)
	for _, h := range r.younger(w) {
		r.Room.Unpin(h.id)
	}
	shape := r.seeks(w).Least().For(r.guest(&w.Ask))
	fits := func() bool {
		before := r.Room.Mark()
		defer r.Room.Rollback(before)
		allocations, _ := r.Room.Take(shape)
		return allocations != nil
	}
	give := func(ends []end) {
		for i := range ends {
			r.Room.Vacate(ends[i].run.ID, ends[i].run.Allocations)
		}
	}
	// It does not fit when the first few have ended, and fits when the first many have.
	few, many := 0, 0
	var short room.Mark
	for step := 1; ; step *= 2 {
		if few == len(r.ends) {
			return 0, nil, false
		}
		many = min(few+step, len(r.ends))
		short = r.Room.Mark()
		give(r.ends[few:many])
		if fits() {
			break
		}
		few = many
	}
	r.Room.Rollback(short)
	for many-few > 1 {
		middle := (few + many) / 2
		short = r.Room.Mark()
		give(r.ends[few:middle])
		if fits() {
			many = middle
			r.Room.Rollback(short)
		} else {
			few = middle
		}
	}
	give(r.ends[few:many])
	allocations, _ = r.Room.Take(shape)
	latest := &r.ends[many-1]
	return latest.at, allocations, latest.endless(w)
}

// backfill places an ask in room that is kept for others, if it will be done before they can use it.
func (r *round) backfill(w *waiter) bool {
	alone := r.guest(&w.Ask) != nil
	if shortest, tried := r.brief[r.seeks(w)]; w.Lasts == 0 || tried && !alone && int64(w.Lasts) >= shortest {
		return false
	}
	var around []*hold
	for _, h := range r.held() {
		if h.id != w.ID && !h.made && h.until != never && int64(w.Lasts) <= h.until-r.now {
			around = append(around, h)
		}
	}
	if len(around) == 0 {
		return false
	}
	mark := r.Room.Mark()
	kept := make([][]cluster.Allocation, len(around))
	for i, h := range around {
		kept[i] = r.Room.Pinned(h.id)
		r.Room.Unpin(h.id)
	}
	r.Room.Unpin(w.ID)
	size, allocations := r.take(w)
	if allocations == nil {
		r.Room.Rollback(mark)
		if !alone {
			r.brief[r.seeks(w)] = int64(w.Lasts)
		}
		return false
	}
	for i, h := range around {
		r.Room.Pin(h.id, kept[i])
	}
	r.placed(w, allocations, size)
	return true
}
