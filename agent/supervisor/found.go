package supervisor

import (
	"bytes"
	"maps"
	"slices"

	"github.com/clary-ml/clary/monitor/metric"
	"github.com/clary-ml/clary/storage/journal"
)

// finder makes rows of what a task writes, line by line.
type finder struct {
	matcher *metric.Matcher
	open    map[string][]byte // lines whose end has not come yet, by stream
}

// take hands on what is found in an entry. A line that comes in pieces is looked at when it has
// ended, or has begun again with a carriage return, as progress bars do: a number may be cut.
func (f *finder) take(e journal.Entry, add func(at int64, row metric.Row)) {
	text := e.Text
	if rest := f.open[e.Stream]; len(rest) > 0 {
		text = append(rest, text...)
	}
	whole, rest := text, []byte(nil)
	if e.Partial {
		end := bytes.LastIndexByte(text, '\r') + 1
		if whole, rest = text[:end], text[end:]; len(rest) > metric.MaxLine {
			rest = nil
		}
	}
	if row, ok := f.matcher.Match(whole); ok {
		row.Cursor = e.Time
		add(e.Time, row)
	}
	f.open[e.Stream] = bytes.Clone(rest)
}

// end looks at the lines that had no end when the task had.
func (f *finder) end(at int64, add func(at int64, row metric.Row)) {
	for _, stream := range slices.Sorted(maps.Keys(f.open)) {
		if row, ok := f.matcher.Match(f.open[stream]); ok {
			row.Cursor = at
			add(at, row)
		}
	}
	clear(f.open)
}
