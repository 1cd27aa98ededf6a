package gossip

import (
	"context"
	"slices"
)

// Remember passes the other coordinators to save whenever they change, until ctx ends,
// so that a start at an address that nobody knows has where to look.
func (g *Gossip) Remember(ctx context.Context, save func(coordinators []Member) error) error {
	for {
		changed := g.Changed()
		others := slices.DeleteFunc(g.Members(), func(m Member) bool { return m.Role != Coordinator || name(m) == name(g.config.Self) })
		if len(others) > 0 {
			if err := save(others); err != nil {
				g.config.Log.Warn("it is not noted where coordinators are", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// maxNoted bounds a list of addresses.
const maxNoted = 16

// Note puts an address of each coordinator before those that were noted earlier.
func Note(noted []string, coordinators []Member, address func(Member) string) []string {
	var list []string
	for _, c := range coordinators {
		list = append(list, address(c))
	}
	for _, earlier := range noted {
		if !slices.Contains(list, earlier) && len(list) < maxNoted {
			list = append(list, earlier)
		}
	}
	return list
}
