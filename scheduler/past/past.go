// Package past remembers how long jobs ran, by their class, so that it can be said of others like them
// how long they will. It is pure, and bounded: so many classes, and so many times of each.
//
// People rarely say how long a job will run, and submit the same job again and again: its owner, what
// its name begins with and how many GPUs it has tell most of what can be known (Tumanov et al., TetriSched,
// EuroSys 2016; Weng et al., MLaaS in the Wild, NSDI 2022, section 4).
package past

import (
	"container/list"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
)

const (
	// Kept is how many times are remembered of a class, the newest.
	Kept = 32
	// Classes is how many classes are remembered; the one that was neither added to nor asked for
	// longest goes first.
	Classes = 4096
	// Enough is how many times it takes until a class says something.
	Enough = 3
)

// Class is what jobs have in common that are likely to run for as long.
type Class struct {
	Owner string
	Kind  cluster.Kind
	Name  string // without what counts its runs
	GPUs  int32  // at the most, of all tasks together
}

// ClassOf is a job's class; the gang is its own.
func ClassOf(job cluster.Job, gang cluster.Gang) Class {
	c := Class{Owner: job.Owner, Kind: job.Kind, Name: stem(job.Name)}
	for _, role := range gang.Roles {
		c.GPUs += role.Count * role.Ask.GPUs
	}
	return c
}

// stem is a name without a number at its end: of train-17 it is train, of typo-t0 typo-t.
func stem(name string) string {
	if short := strings.TrimRight(name, "-0123456789"); short != "" {
		return short
	}
	return name
}

// Book has the times. The zero Book has none. It is not safe for concurrent use.
type Book struct {
	classes map[Class]*list.Element // of *page
	recent  list.List               // the one that was used last comes first
}

type page struct {
	class  Class
	newest int // place of the time that was added last
	times  []time.Duration
	sorted []time.Duration // nil until it is asked for
}

// Add notes how long a job of the class ran until it had succeeded. What comes later counts as newer.
func (b *Book) Add(class Class, ran time.Duration) {
	if ran <= 0 {
		return
	}
	p := b.page(class)
	if p == nil {
		if b.classes == nil {
			b.classes = map[Class]*list.Element{}
		}
		if len(b.classes) == Classes {
			oldest := b.recent.Back()
			delete(b.classes, oldest.Value.(*page).class)
			b.recent.Remove(oldest)
		}
		p = &page{class: class, newest: -1}
		b.classes[class] = b.recent.PushFront(p)
	}
	p.sorted = nil
	p.newest = (p.newest + 1) % Kept
	if len(p.times) < Kept {
		p.times = append(p.times, ran)
		return
	}
	p.times[p.newest] = ran
}

func (b *Book) page(class Class) *page {
	at := b.classes[class]
	if at == nil {
		return nil
	}
	b.recent.MoveToFront(at)
	return at.Value.(*page)
}

// Times are those of the class, the shortest first. They must not be changed.
func (b *Book) Times(class Class) []time.Duration {
	p := b.page(class)
	if p == nil {
		return nil
	}
	if p.sorted == nil {
		p.sorted = slices.Sorted(slices.Values(p.times))
	}
	return p.sorted
}

// Within is the time within which such a part of the class was done; false if too little is known of it.
// Percent is from 0 to 100.
func (b *Book) Within(class Class, percent int) (time.Duration, bool) {
	times := b.Times(class)
	if len(times) < Enough {
		return 0, false
	}
	at := (len(times)*percent + 99) / 100
	return times[min(max(at, 1), len(times))-1], true
}

// Cautious is the part of a class, in percent, within whose time a job is taken to be done when others
// rely on it: who is late makes them wait.
const Cautious = 90

// Lasts is how long a gang holds its room once it has got it: what its limit leaves, or what the class
// leaves of the time in which most were done; 0 if nobody knows. Ran is what it has run already. Who has
// outlived its class is one that nobody knows.
func (b *Book) Lasts(class Class, limit, ran time.Duration) time.Duration {
	lasts := time.Duration(math.MaxInt64)
	if limit > 0 {
		lasts = max(limit-ran, 1)
	}
	if within, known := b.Within(class, Cautious); known && within > ran {
		lasts = min(lasts, within-ran)
	}
	if lasts == math.MaxInt64 {
		return 0
	}
	return lasts
}
