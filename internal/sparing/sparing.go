// Package sparing keeps a log from being flooded by strangers: of lines that say the same it lets a few through in a
// span of time, and then tells how many there were.
package sparing

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// What is let through: so many lines that begin alike in so long.
const (
	Lines = 10
	Span  = 10 * time.Second
	alike = 32 // bytes of a message that are compared: what follows is mostly an address
	most  = 64 // kinds of line that are counted apart; all others count as one
)

// Handler passes records on to another handler, those that are alike sparingly.
type Handler struct {
	next slog.Handler
	told *told
}

// told is what was said lately. It is shared by all handlers that derive from one.
type told struct {
	mu    sync.Mutex
	kinds map[string]*count
}

type count struct {
	since          time.Time
	lines, skipped int
}

// New makes a logger that is sparing with what it passes on.
func New(log *slog.Logger) *slog.Logger {
	return slog.New(&Handler{next: log.Handler(), told: &told{kinds: map[string]*count{}}})
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler. What was left out is told with the first line of its kind that is let through again.
func (h *Handler) Handle(ctx context.Context, record slog.Record) error {
	skipped, pass := h.told.take(record)
	if !pass {
		return nil
	}
	if skipped > 0 {
		record = record.Clone()
		record.AddAttrs(slog.Int("left_out_before", skipped))
	}
	return h.next.Handle(ctx, record)
}

// take counts a line and says whether it goes through.
func (t *told) take(record slog.Record) (skipped int, pass bool) {
	kind := record.Level.String() + record.Message[:min(len(record.Message), alike)]
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.kinds[kind]
	if c == nil && len(t.kinds) >= most {
		t.forget(record.Time)
	}
	if c == nil && len(t.kinds) >= most {
		kind = "" // which no record has: a level has a name
		c = t.kinds[kind]
	}
	if c == nil {
		c = &count{}
		t.kinds[kind] = c
	}
	if record.Time.Sub(c.since) >= Span {
		skipped = c.skipped
		*c = count{since: record.Time}
	}
	if c.lines++; c.lines > Lines {
		c.skipped++
		return 0, false
	}
	return skipped, true
}

// forget drops the kinds of which nothing was heard lately and nothing is left to be told: their places are for others.
func (t *told) forget(now time.Time) {
	for kind, c := range t.kinds {
		if now.Sub(c.since) >= Span && c.skipped == 0 {
			delete(t.kinds, kind)
		}
	}
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{next: h.next.WithAttrs(attrs), told: h.told}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{next: h.next.WithGroup(name), told: h.told}
}
