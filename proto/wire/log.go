package wire

import (
	"regexp"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/storage/journal"
)

// Bounds on what a request for logs may ask.
const (
	maxTail  = 1 << 20 // lines
	maxMatch = 4096    // bytes
)

// EntriesToProto converts entries of a log. It copies their texts, which are valid for a moment only.
func EntriesToProto(entries []journal.Entry) []*claryv1.LogEntry {
	size := 0
	for _, e := range entries {
		size += len(e.Text)
	}
	texts := make([]byte, 0, size)
	return list(entries, func(e journal.Entry) *claryv1.LogEntry {
		texts = append(texts, e.Text...)
		return &claryv1.LogEntry{Time: e.Time, Stream: e.Stream, Partial: e.Partial, Text: texts[len(texts)-len(e.Text):]}
	})
}

// EntriesFromProto converts entries of a log.
func EntriesFromProto(entries []*claryv1.LogEntry) []journal.Entry {
	return list(entries, func(e *claryv1.LogEntry) journal.Entry {
		return journal.Entry{Time: e.GetTime(), Stream: e.GetStream(), Partial: e.GetPartial(), Text: e.GetText()}
	})
}

// LogQuestion is what requests for logs have in common.
type LogQuestion interface {
	GetSince() int64
	GetUntil() int64
	GetMatch() string
	GetTail() int64
	GetFollow() bool
}

// LogQuery converts what a request asks for and refuses what makes no sense, naming the field.
func LogQuery(asked LogQuestion) (journal.Query, error) {
	var problems cluster.Problems
	query := journal.Query{Since: asked.GetSince(), Until: asked.GetUntil(), Tail: int(asked.GetTail()), Follow: asked.GetFollow()}
	if query.Tail < 0 || query.Tail > maxTail {
		problems.Add("tail", "%d is out of range: say how many last lines to show, up to %d, or 0 for all", query.Tail, maxTail)
	}
	if query.Since < 0 {
		problems.Add("since", "%d is before 1970: it is in Unix nanoseconds, 0 for none", query.Since)
	}
	if query.Until != 0 && query.Until <= query.Since {
		problems.Add("until", "%s is not after since, %s: exchange them", journal.FormatTime(query.Until), journal.FormatTime(query.Since))
	}
	if pattern := asked.GetMatch(); len(pattern) > maxMatch {
		problems.Add("match", "it has %d bytes, at most %d may be: look for less", len(pattern), maxMatch)
	} else if pattern != "" {
		expression, err := regexp.Compile(pattern)
		if err != nil {
			problems.Add("match", "%q is no regular expression: %v", cluster.Clip(pattern), err)
		}
		query.Match = expression
	}
	if err := problems.Err(); err != nil {
		return query, fault.New(fault.Invalid, "%w", err)
	}
	return query, nil
}
