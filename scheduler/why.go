package scheduler

import (
	"fmt"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// Whys says why each gang of the look waits, in the look's order: what blocks it first, then who goes before it.
func (l *Look) Whys() []cluster.Why {
	w := looker{Look: l, room: l.room.Clone(), known: map[*Needs]nodesSay{}}
	whys := make([]cluster.Why, len(l.asks))
	for i := range l.asks {
		whys[i] = w.why(&l.asks[i])
	}
	return whys
}

// looker works out whys on a copy of the room that is its own.
type looker struct {
	*Look
	room  *room.Map
	known map[*Needs]nodesSay // what is said of one holds for all that seek the same and have nothing kept for them
}

// nodesSay is what the nodes have to say of a gang.
type nodesSay struct {
	fits    bool
	summary string
	blocks  []cluster.Block
}

func (l *looker) why(a *asked) cluster.Why {
	why := cluster.Why{Gang: a.ID, Queue: a.Queue, Place: int32(a.place), Of: int32(a.of)}
	if a.place == 0 {
		why.Of = 0
	}
	switch {
	case a.Waits(l.now) || l.room.Len() == 0:
		said := Explain(l.room, a.Ask, l.now)
		why.Summary, why.Blocks = said.Summary, said.Blocks
		return why
	case a.until > l.now:
		return waits(why, "pause", "its last placement was refused: it is tried again in "+short(time.Duration(a.until-l.now)))
	case a.own != nil && a.own.made:
		l.preempts(&why, a.own)
		return why
	}
	said := l.nodes(a)
	if a.denied {
		l.add(&why, cluster.Block{Constraint: a.block.Limit, Missing: a.block.Short, Text: a.block.String()})
	}
	switch {
	case !said.fits:
		if why.Blocks = append(why.Blocks, said.blocks...); a.denied {
			break
		}
		why.Summary = said.summary
		if len(a.barred) > 0 && l.fits(a) {
			l.add(&why, cluster.Block{Constraint: "models", Text: fmt.Sprintf(
				"there is room for it on other GPUs, and queue %s may hold no more of these for it: %s", a.Queue, strings.Join(a.barred, ", "))})
		}
	case !a.denied && a.strict && a.place > 1:
		l.add(&why, cluster.Block{Constraint: "turn", Gangs: a.ahead[:1], Text: fmt.Sprintf("there is room for it, and queue %s lets nobody overtake %s", a.Queue, a.ahead[0])})
	case !a.denied && a.behind != "":
		l.add(&why, cluster.Block{Constraint: "turn", Gangs: []string{a.behind}, Text: fmt.Sprintf(
			"there is room for it, and %s goes first, which has waited for long for what a limit of its queue, or of one above both, leaves", a.behind)})
	case !a.denied:
		l.add(&why, cluster.Block{Constraint: "turn", Text: "there is room for it now: it is placed in a moment"})
	}
	l.expects(&why, a)
	l.order(&why, a)
	return why
}

// add appends a block, and its text to the summary.
func (l *looker) add(why *cluster.Why, b cluster.Block) {
	why.Blocks = append(why.Blocks, b)
	if why.Summary != "" {
		why.Summary += "; "
	}
	why.Summary += b.Text
}

// preempts tells of those who make room for the gang.
func (l *looker) preempts(why *cluster.Why, own *held) {
	b := cluster.Block{Constraint: "preemption", Nodes: int32(len(own.nodes)), Gangs: own.awaits}
	switch n := len(own.awaits); n {
	case 0:
		b.Text = "room was made for it: it is placed in a moment"
	case 1:
		b.Text = fmt.Sprintf("it waits for %s to stop, which makes room for it on %s", own.awaits[0], some(own.nodes))
	default:
		b.Text = fmt.Sprintf("it waits for %d others to stop, which make room for it on %s: %s", n, some(own.nodes), some(own.awaits))
	}
	l.add(why, b)
}

// expects tells of the room that is kept for the gang, and when that is expected to be free.
func (l *looker) expects(why *cluster.Why, a *asked) {
	if a.own == nil || a.own.made {
		return
	}
	b := cluster.Block{Constraint: "reserved", Nodes: int32(len(a.own.nodes)), Text: "room is kept for it on " + some(a.own.nodes)}
	if a.own.until != never {
		b.Until, why.Expected = a.own.until, a.own.until
		b.Text += ", expected to be free " + l.about(a.own.until)
	}
	l.add(why, b)
}

// order tells who goes first.
func (l *looker) order(why *cluster.Why, a *asked) {
	if a.place > 1 {
		text := fmt.Sprintf("it is %d of %d in queue %s, behind %s", a.place, a.of, a.Queue, strings.Join(a.ahead, ", "))
		if more := a.place - 1 - len(a.ahead); more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		l.add(why, cluster.Block{Constraint: "order", Gangs: a.ahead, Text: text})
	}
	if a.rival != "" {
		l.add(why, cluster.Block{Constraint: "share", Text: fmt.Sprintf(
			"queue %s has less than its share and goes first (by weight %s would then have %.1f %% of the cluster, and %s %.1f %%)",
			a.rival, a.rival, 100*a.less.Fraction(), a.Queue, 100*a.share.Fraction())})
	}
}

// nodes asks the nodes, without what is kept for the gang itself.
func (l *looker) nodes(a *asked) nodesSay {
	alone := a.own != nil || a.ShapeIn(l.room, a.Shape) != a.Shape // what is said of it holds for it alone
	if said, known := l.known[a.seeks]; known && !alone {
		return said
	}
	mark := l.room.Mark()
	defer l.room.Rollback(mark)
	l.room.Unpin(a.ID)
	said := l.ask(a)
	if !alone {
		l.known[a.seeks] = said
	}
	return said
}

// fits reports whether there would be room if the gang might have GPUs of any model that it is content with.
func (l *looker) fits(a *asked) bool {
	mark := l.room.Mark()
	defer l.room.Rollback(mark)
	allocations, _ := l.room.Take(a.ShapeIn(l.room, a.needs.Least().Shape))
	return allocations != nil
}

func (l *looker) ask(a *asked) nodesSay {
	shape := a.ShapeIn(l.room, a.seeks.Least().Shape)
	mark := l.room.Mark()
	defer l.room.Rollback(mark)
	if allocations, _ := l.room.Take(shape); allocations != nil {
		return nodesSay{fits: true}
	}
	for i := range l.holds {
		l.room.Unpin(l.holds[i].id)
	}
	allocations, _ := l.room.Take(shape)
	l.room.Rollback(mark)
	if allocations != nil {
		return l.kept(a, allocations)
	}
	why := stuck(cluster.Why{}, l.room, shape, "free")
	return nodesSay{summary: why.Summary, blocks: why.Blocks}
}

// kept tells of the room that would do if it were not kept for others.
func (l *looker) kept(a *asked, allocations []cluster.Allocation) nodesSay {
	on := map[string]bool{}
	for i := range allocations {
		on[allocations[i].Node] = true
	}
	b := cluster.Block{Constraint: "reserved"}
	nodes := map[string]bool{}
	var texts []string
	for i := range l.holds {
		h := &l.holds[i]
		var here []string
		for _, node := range h.nodes {
			if on[node] && h.id != a.ID {
				here = append(here, node)
				nodes[node] = true
			}
		}
		if len(here) == 0 {
			continue
		}
		text := fmt.Sprintf("room on %s is kept for %s", some(here), h.id)
		if h.until != never {
			text += " until " + l.about(h.until)
			b.Until = max(b.Until, h.until)
		}
		texts, b.Gangs = append(texts, text), append(b.Gangs, h.id)
	}
	b.Nodes, b.Text = int32(len(nodes)), strings.Join(texts, "; ")
	return nodesSay{summary: b.Text, blocks: []cluster.Block{b}}
}

// about reads like "about 14:05 UTC", with the day if it is another.
func (l *looker) about(instant int64) string {
	at, now := time.Unix(0, instant).UTC(), time.Unix(0, l.now).UTC()
	if at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format("about 15:04 UTC")
	}
	return at.Format("about 2006-01-02 15:04 UTC")
}

// some names the first few of many.
func some(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
}
