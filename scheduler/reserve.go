package scheduler

import (
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
		if h.due > r.now || h.at == r.now {
			r.recall(h.due)
			r.stays(w)
			return
		}
	} else if r.crowded() && len(r.younger(w)) == 0 {
		return
	}
	if r.vain(w.keep) {
		return
	}
	if next := w.keep.at + int64(reserveEvery); w.keep.at > 0 && next > r.now && r.holds[w.ID] == nil {
		r.recall(next)
		r.stays(w)
		return
	}
	latest, allocations := r.earliest(w)
	if latest == nil {
		w.keep = look{r.moves, r.now, never}
		return
	}
	until, endless := latest.at, latest.endless(w)
	if patient := w.since + int64(r.opts.Patience); until == never && patient > r.now {
		w.keep = look{r.moves, r.now, patient}
		r.recall(patient)
		return
	}
	due := r.again(w, latest)
	if endless {
		if again := r.keeps(w); again > 0 {
			w.keep = look{r.moves, r.now, again}
			return
		}
		due = r.spells.until
	}
	for _, a := range allocations {
		for _, h := range r.younger(w) {
			if _, on := slices.BinarySearch(h.nodes, a.Node); on {
				r.unhold(h.id)
			}
		}
	}
	if r.holds[w.ID] == nil && r.crowded() {
		r.unholdYoungest(w)
	}
	r.hold(&hold{id: w.ID, until: until, at: r.now, due: due, endless: endless}, allocations)
	r.recall(due)
	r.stays(w)
}

// stays has all stay kept that is kept for an ask, its limits until it has room and its room until it is admitted: or others would take the one while it waits
// for the other, in turns.
func (r *round) stays(w *waiter) {
	h, until := r.holds[w.ID], int64(0)
	if h != nil {
		h.seen, until = !h.endless || !r.spells.rests, h.until
	}
	for _, s := range r.shuts { // in any order
		if s.by == w {
			s.seen, w.leads = true, true
			until = max(until, s.until)
		}
	}
	for _, s := range r.shuts { // in any order
		if s.by == w {
			s.until = until
		}
	}
	if h != nil {
		h.until = until
	}
}

// crowded reports whether room is kept for as many as may have it, besides those for whom others make it.
func (r *round) crowded() bool {
	if len(r.holds) < maxHolds {
		return false
	}
	n := 0
	for _, h := range r.held() {
		if !h.made {
			n++
		}
	}
	return n >= maxHolds
}

// younger are the holds of those that have waited for less long than an ask. They stand back: so the one that has waited
// longest always finds room in the end, however many others wait beside it.
func (r *round) younger(w *waiter) []*hold {
	return slices.DeleteFunc(slices.Clone(r.held()), func(h *hold) bool {
		return h.made || h.id == w.ID || bySeniority(r.waiting[h.id], w) < 0
	})
}

// unholdYoungest gives up the youngest of the holds that are younger than an ask which has a hold to make: only then, or the two
// would take turns for ever.
func (r *round) unholdYoungest(w *waiter) {
	youngest := slices.MaxFunc(r.younger(w), func(a, b *hold) int { return bySeniority(r.waiting[a.id], r.waiting[b.id]) })
	r.unhold(youngest.id)
}

// earliest is the last that has to end before an ask finds room if nothing else is placed, and where; nil if it never would. What is kept for
// those that have waited for longer is not to be had.
func (r *round) earliest(w *waiter) (latest *end, allocations []cluster.Allocation) {
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
			return nil, nil
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
	return &r.ends[many-1], allocations
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
