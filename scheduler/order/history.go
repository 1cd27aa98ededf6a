package order

import (
	"slices"
	"strconv"

	"github.com/clary-ml/clary/scheduler/past"
)

const (
	// pseudo is how many jobs a more general class weighs beside those of a more particular one.
	pseudo = 2
	// prior is the share that ends in each bin as long as nothing is known. It is the same in all bins, which
	// is a power law: such jobs have no length of their own, and who has attained least goes first.
	prior = one / 16
	// maxClasses bounds a history: of more, those that were used least lately are forgotten.
	maxClasses = 1 << 13
)

// History is how long jobs of a class run, and how their progress goes. It learns from jobs while they run,
// not only from those that are done, so that long jobs are not unheard of until the first one ends. It is not safe for
// concurrent use.
type History struct {
	classes map[string]*class
	clock   uint64 // of what was noted and asked
}

type class struct {
	life
	curve   curve
	outlook *outlook
	known   int64 // what had been seen, of this class and those above it, when the outlook was made
	used    uint64
}

// NewHistory returns a history of nothing.
func NewHistory() *History { return &History{classes: map[string]*class{}} }

// Classes are the classes of a job, from the most general to the most particular: all jobs, those of as many
// GPUs, of the same day, of the same owner, and its own. What jobs of a shared cluster have in common predicts
// best how long they run, and no one feature does for all (Park et al., 3Sigma, EuroSys 2018, section 4).
func Classes(own past.Class, submitted int64) []string {
	size := strconv.FormatInt(int64(own.GPUs), 10)
	classes := []string{"", size, size + "@" + strconv.FormatInt(submitted/day, 10)}
	if own.Owner != "" {
		classes = append(classes, size+" "+own.Owner)
	}
	if own.Name != "" {
		classes = append(classes, size+" "+own.Owner+"/"+string(own.Kind)+"/"+own.Name)
	}
	return classes
}

const day = 24 * 3600 * second

// Track is what a history has been told of one job. Make one with its Classes when it first runs.
type Track struct {
	Classes []string
	Noted   int64            // seconds that it ran
	Passed  [marks + 1]int64 // after how many it had passed each mark of its progress; 0 if it has not
}

// Note tells how far a job has come: how long it ran in all, without what was lost, and how much it has done of what in
// all (0: it does not say).
func (h *History) Note(t *Track, ran, done, total int64) {
	h.note(t, seconds(ran), done, total, false)
}

// End tells that it is done.
func (h *History) End(t *Track, ran int64) { h.note(t, seconds(ran), 0, 0, true) }

func (h *History) note(t *Track, ran, done, total int64, end bool) {
	if total > 0 {
		for k := int(min(marks, muldiv(done, marks, total))); k > 0 && t.Passed[k] == 0; k-- {
			t.Passed[k] = max(1, ran)
		}
	}
	ran = max(ran, t.Noted)
	if !end && bin(ran) == bin(t.Noted) {
		return
	}
	for _, name := range t.Classes {
		c := h.class(name)
		c.ran(t.Noted, ran, end)
		if end && t.reported() {
			c.curve.add(&t.Passed, ran)
		}
	}
	t.Noted = ran
}

func (t *Track) reported() bool {
	return slices.ContainsFunc(t.Passed[:], func(at int64) bool { return at > 0 })
}

func (h *History) class(name string) *class {
	c := h.classes[name]
	if c == nil {
		if len(h.classes) >= maxClasses {
			h.forget()
		}
		c = &class{}
		h.classes[name] = c
	}
	h.clock++
	c.used = h.clock
	return c
}

// forget drops the half of the classes that was used longest ago. No two were used at once, so it is always the same half.
func (h *History) forget() {
	used := make([]uint64, 0, len(h.classes))
	for _, c := range h.classes { // sorted below
		used = append(used, c.used)
	}
	slices.Sort(used)
	for name, c := range h.classes {
		if c.used < used[len(used)/2] {
			delete(h.classes, name)
		}
	}
}

func (h *History) chain(names []string) []*class {
	chain := make([]*class, len(names))
	for i, name := range names {
		chain[i] = h.class(name)
	}
	return chain
}

// outlook is worked out again when a sixteenth more has been seen: what one job adds does not move everyone.
func (h *History) outlook(names []string) *outlook {
	chain := h.chain(names)
	seen := int64(0)
	for _, c := range chain {
		seen += c.seen
	}
	last := chain[len(chain)-1]
	if last.outlook == nil || seen > last.known+last.known/16 {
		last.outlook, last.known = foretell(hazard(chain)), seen
	}
	return last.outlook
}

// hazard is the share of jobs that end in each bin among those that reach it. A class that has seen little
// believes those above it.
func hazard(chain []*class) *[bins]int64 {
	var shares [bins]int64
	for b := range shares {
		shares[b] = prior
		for _, c := range chain {
			n := int64(c.ended[b]) + int64(c.through[b])
			shares[b] = (int64(c.ended[b])*one + pseudo*shares[b]) / (n + pseudo)
		}
	}
	return &shares
}

// Effort is the least expected work, in nanoseconds of running, for each job of these classes that ends, for one
// that has run for so long: its Gittins rank.
func (h *History) Effort(classes []string, ran int64) int64 {
	return h.outlook(classes).effort[bin(seconds(ran))] * second
}

// Left is how long a job of these classes that has run for so long is expected to run yet, in nanoseconds.
func (h *History) Left(classes []string, ran int64) int64 {
	return h.outlook(classes).mean[bin(seconds(ran))] * second
}

// ByProgress is how long a job is expected to run yet, in nanoseconds, if its progress goes on as that of its
// classes did, or evenly. It needs some progress.
func (h *History) ByProgress(j Job) int64 {
	chain := h.chain(j.Classes)
	at := min(muldiv(j.Done, marks*share, j.Total), marks*share) // in marks, of which each has share parts
	k := int(min(at/share, marks-1))
	low, high := used(chain, k), used(chain, k+1)
	done := max(1, low+muldiv(max(0, high-low), at-int64(k)*share, share))
	left := muldiv(seconds(j.Ran), max(0, share-done), done)
	return edge(bin(min(left, maxSeconds))) * second // two jobs do not change places with every report
}
