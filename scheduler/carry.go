package scheduler

import (
	"cmp"
	"maps"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/order"
	"github.com/clary-ml/clary/scheduler/score"
	"github.com/clary-ml/clary/scheduler/share"
)

// Learned is what a Cluster has learned of the work that jobs do. Another takes it before it is told of gangs.
type Learned struct {
	Pages []order.Page
	Works []Work
}

// Work is what is known of the work of one gang.
type Work struct {
	Gang        string
	Track       order.Track
	Done, Total int64 // as it reports
}

// Notes are what a Cluster keeps in mind beside what nodes, queues and gangs say of themselves. Another takes them after it was
// told of all of those.
type Notes struct {
	Paused []Paused
	Rooms  []Room
	Wanted Wanted
}

// Paused is a gang that is not planned before an instant.
type Paused struct {
	Gang  string
	Until int64
}

// Room is room that others were told to make for a gang.
type Room struct {
	Gang        string
	Step        int // the size that it is for
	Awaits      []string
	Allocations []cluster.Allocation
	Claim       *share.Claim // what is charged for it; nil if nothing could be
}

// Wanted is what was asked for, by which nodes are scored.
type Wanted struct {
	Counts       []score.Count
	Tasks, Fresh int64
	Mix          score.Mix // by which they are scored now
}

// Learned is what the Cluster knows of the work of jobs, and of that of the gangs that stay.
func (c *Cluster) Learned(stays func(gang string) bool) Learned {
	l := Learned{Pages: c.history.Pages()}
	for _, id := range slices.Sorted(maps.Keys(c.works)) {
		if w := c.works[id]; (w.Track.Noted > 0 || w.total > 0) && stays(id) {
			l.Works = append(l.Works, Work{Gang: id, Track: w.Track, Done: w.done, Total: w.total})
		}
	}
	return l
}

// Learn takes over what another has learned.
func (c *Cluster) Learn(l Learned) {
	c.history = order.HistoryOf(l.Pages)
	for _, w := range l.Works {
		c.works[w.Gang] = &work{Track: w.Track, done: w.Done, total: w.Total}
	}
}

// Notes are what the Cluster keeps in mind of gangs that stay, on nodes that are ready.
func (c *Cluster) Notes(stays, ready func(id string) bool) Notes {
	var k Notes
	for id, w := range c.waiting { // sorted below
		if w.until > w.NotBefore && stays(id) {
			k.Paused = append(k.Paused, Paused{id, w.until})
		}
	}
	slices.SortFunc(k.Paused, func(a, b Paused) int { return cmp.Compare(a.Gang, b.Gang) })
	for _, h := range c.held() {
		lost := slices.ContainsFunc(h.nodes, func(node string) bool { return !ready(node) })
		if !h.made || lost || !stays(h.id) {
			continue
		}
		k.Rooms = append(k.Rooms, Room{Gang: h.id, Step: h.step, Awaits: h.awaits, Allocations: c.Room.Pinned(h.id), Claim: h.claim})
	}
	k.Wanted = Wanted{c.wanted.demand.Counts(), c.wanted.tasks, c.wanted.fresh, c.wanted.mix}
	return k
}

// Note takes over what another kept in mind.
func (c *Cluster) Note(k Notes) {
	for _, p := range k.Paused {
		c.Pause(p.Gang, p.Until)
	}
	for i := range k.Rooms {
		c.keepRoom(&k.Rooms[i])
	}
	c.wanted = wanted{tasks: k.Wanted.Tasks, fresh: k.Wanted.Fresh}
	for _, count := range k.Wanted.Counts {
		c.wanted.demand.Put(count)
	}
	c.use(k.Wanted.Mix)
}

// keepRoom keeps room that others make, unless its gang has been given up meanwhile or goes on as it is.
func (c *Cluster) keepRoom(r *Room) {
	if w := c.waiting[r.Gang]; w != nil && (w.Held || w.Stop) {
		return
	}
	if run := c.running[r.Gang]; run != nil && !run.Stops {
		return
	}
	h := &hold{id: r.Gang, until: never, made: true, step: max(0, r.Step), seen: true, awaits: r.Awaits}
	c.hold(h, r.Allocations)
	if r.Claim != nil {
		h.claim = c.charge(*r.Claim)
	}
	c.gain()
}
