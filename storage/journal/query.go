package journal

import (
	"regexp"
	"slices"
)

// maxLine bounds what is kept of a line that comes in pieces, to match it as a whole.
const maxLine = 64 << 10

// Query says which entries are wanted. The zero value wants all that are there.
type Query struct {
	After        int64          // only later ones: the time of an entry that was read already
	Since, Until int64          // Unix nanoseconds, from Since on and before Until; 0 is no bound
	Streams      []string       // of these only, if there are any
	Match        *regexp.Regexp // lines in which this is found
	Tail         int            // the last lines of those; 0 is all
	Follow       bool           // go on with what is still to be written
}

// Selection picks what a query wants from entries that it is shown in order of time. Tail and
// Follow are for those who know where the entries are: a selection decides from what it is shown.
type Selection struct {
	query Query
	last  int64 // the latest entry's time
	shown bool
	lines map[string]*line
}

// line is one that comes in pieces.
type line struct {
	held    []byte // what did not match yet
	matched bool
}

// Select begins a selection.
func (q Query) Select() *Selection {
	return &Selection{query: q, lines: map[string]*line{}}
}

// Pick shows the next entry and reports whether it is wanted. One that is not later than the one
// before is not: it was seen already.
//
// With Match a line that comes in pieces is wanted from the piece on with which it matches, and that
// piece then has the text of those before; pieces without a match are forgotten, a bound at a time.
func (s *Selection) Pick(e Entry) (Entry, bool) {
	if s.shown && e.Time <= s.last {
		return Entry{}, false
	}
	s.shown, s.last = true, e.Time
	if len(s.query.Streams) > 0 && !slices.Contains(s.query.Streams, e.Stream) {
		return Entry{}, false
	}
	if s.query.Match != nil {
		var ok bool
		if e, ok = s.match(e); !ok {
			return Entry{}, false
		}
	}
	q := s.query
	return e, (q.After == 0 || e.Time > q.After) && (q.Since == 0 || e.Time >= q.Since) && (q.Until == 0 || e.Time < q.Until)
}

func (s *Selection) match(e Entry) (Entry, bool) {
	begun := s.lines[e.Stream]
	if begun == nil && !e.Partial {
		return e, s.query.Match.Match(e.Text)
	}
	if begun == nil {
		begun = &line{}
		s.lines[e.Stream] = begun
	}
	if !e.Partial {
		delete(s.lines, e.Stream)
	}
	if begun.matched {
		return e, true
	}
	if len(begun.held)+len(e.Text) > maxLine {
		begun.held = nil
	}
	begun.held = append(begun.held, e.Text...)
	if begun.matched = s.query.Match.Match(begun.held); !begun.matched {
		return e, false
	}
	e.Text, begun.held = begun.held, nil
	return e, true
}

// Last is the time of the latest entry that was shown, 0 before the first.
func (s *Selection) Last() int64 { return s.last }

// Over reports whether nothing that is still to come can be wanted.
func (s *Selection) Over() bool { return s.shown && s.query.Until != 0 && s.last >= s.query.Until }

// Cut returns the query that wants what this one wants of its last lines, as a cursor instead of a
// number. It looks at the entries that scan shows for a query without tail, from one of the starts on
// and, while those have too few lines, from the next, which is earlier. The starts are instants, newest
// first; after the last of them it looks at everything.
//
// A line counts at its end, and the last piece of a line without an end counts too.
func (q Query) Cut(starts []int64, scan func(Query, Sink) error) (Query, error) {
	if q.Tail <= 0 {
		return q, nil
	}
	cut := q
	cut.Tail = 0
	floor := max(q.After, q.Since-1)
	for _, start := range append(slices.Clip(starts), floor) {
		look, last := cut, lastLines{most: q.Tail, open: map[string]int64{}}
		look.Follow, look.After = false, max(start, floor)
		if err := scan(look, last.add); err != nil {
			return q, err
		}
		if after, enough := last.cut(); enough || start <= floor {
			cut.After = max(after, q.After)
			break
		}
	}
	return cut, nil
}

// lastLines remembers when the last lines ended, one more than are wanted.
type lastLines struct {
	most  int
	ends  []int64 // a ring, once it has most+1
	next  int
	open  map[string]int64 // the latest piece of a line without an end, by stream
	times []int64
}

func (l *lastLines) add(batch []Entry) error {
	for _, e := range batch {
		if e.Partial {
			l.open[e.Stream] = e.Time
			continue
		}
		delete(l.open, e.Stream)
		if len(l.ends) <= l.most {
			l.ends = append(l.ends, e.Time)
			continue
		}
		l.ends[l.next] = e.Time
		l.next = (l.next + 1) % len(l.ends)
	}
	return nil
}

// cut is the end of the last line that is not wanted, if there is one.
func (l *lastLines) cut() (after int64, enough bool) {
	l.times = append(l.times[:0], l.ends...)
	for _, time := range l.open {
		l.times = append(l.times, time)
	}
	if len(l.times) <= l.most {
		return 0, false
	}
	slices.Sort(l.times)
	return l.times[len(l.times)-l.most-1], true
}
