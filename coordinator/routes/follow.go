package routes

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/route"
)

// askAgain is the wait after a leader was looked for in vain.
const askAgain = 500 * time.Millisecond

// CatchUp returns when the table is as new as a version, or when the leader has said that nothing is newer
// than what is here: the cluster was brought back from a backup. A router whose table is newer than this
// coordinator's state is not to be given an older one, and it may well be: a coordinator that was started
// again knows no more than its snapshot until there is a leader.
func (f *Feed) CatchUp(ctx context.Context, version uint64) error {
	for {
		table, changed := f.Table()
		if table.Version > 0 && table.Version >= version {
			return nil
		}
		switch here, sure := f.revision(ctx, true), f.revision(ctx, false); {
		case here >= version: // and the table is of a change that was before
			select {
			case f.recheck <- struct{}{}:
			default:
			}
		case sure > 0 && sure < version && table.Version > 0:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.ended:
			return fault.New(fault.Unready, "this coordinator is stopping: ask another")
		case <-changed:
		case <-time.After(askAgain):
		}
	}
}

// revision is the state's, 0 if it cannot be read.
func (f *Feed) revision(ctx context.Context, stale bool) uint64 {
	ctx, cancel := context.WithTimeout(ctx, askAgain)
	defer cancel()
	snapshot, err := f.ledger.Read(ctx, stale)
	if err != nil {
		return 0
	}
	defer snapshot.Close()
	return snapshot.Revision()
}

// Follow calls set with the newest table, if a router has not a newer one itself, and with each that
// follows, until ctx or the feed ends.
func (f *Feed) Follow(ctx context.Context, version uint64, set func(route.Table) error) error {
	if err := f.CatchUp(ctx, version); err != nil {
		return err
	}
	for {
		table, changed := f.Table()
		if err := set(table); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.ended:
			return fault.New(fault.Unready, "this coordinator is stopping")
		case <-changed:
		}
	}
}

// Update is what somebody who follows a table does not have of it yet.
type Update struct {
	Whole     bool // what it does not name is gone
	Version   uint64
	Endpoints [][]byte // JSON of each that is new or changed, in the order of their names
	Gone      []string
	Tokens    []byte // JSON; nil if they are as before
}

// Cursor remembers what was told to one follower.
type Cursor struct {
	begun  bool
	told   map[string]uint64 // by endpoint: since which version it is as it was told
	tokens uint64
}

// Next is what the follower does not have, and a channel that is closed when there is more. Version 0 says
// that there is no table yet.
func (f *Feed) Next(c *Cursor) (Update, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.version == 0 {
		return Update{}, f.changed
	}
	u := Update{Whole: !c.begun, Version: f.version}
	if c.told == nil {
		c.told = map[string]uint64{}
	}
	for _, name := range slices.Sorted(maps.Keys(f.entries)) {
		if e := f.entries[name]; c.told[name] != e.since {
			u.Endpoints = append(u.Endpoints, e.text)
			c.told[name] = e.since
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.told)) {
		if _, there := f.entries[name]; !there {
			u.Gone = append(u.Gone, name)
			delete(c.told, name)
		}
	}
	if !c.begun || c.tokens != f.tokens.since {
		u.Tokens, c.tokens = f.tokens.text, f.tokens.since
	}
	c.begun = true
	return u, f.changed
}
