package gossip

import (
	"bytes"
	"slices"

	"github.com/hashicorp/memberlist"

	"github.com/clary-ml/clary/internal/fault"
)

func checkKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return fault.New(fault.Invalid, "gossip keys: there is none")
	}
	for _, key := range keys {
		if len(key) != KeySize {
			return fault.New(fault.Invalid, "gossip key: %d bytes, must be %d", len(key), KeySize)
		}
	}
	return nil
}

// SetKeys changes which keys are understood, and which is spoken: the first. Members that have one in common with what
// each of them speaks hear one another; so a new key is first given to all, then spoken, and only then is the old one
// taken away.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	ring := g.keyring
	for _, key := range keys {
		if err := ring.AddKey(key); err != nil {
			return fault.New(fault.Invalid, "gossip keys: %w", err)
		}
	}
	if err := ring.UseKey(keys[0]); err != nil {
		return fault.New(fault.Invalid, "gossip keys: %w", err)
	}
	for _, known := range ring.GetKeys() {
		if !slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, known) }) {
			if err := ring.RemoveKey(known); err != nil {
				return fault.New(fault.Internal, "gossip keys: %w", err)
			}
		}
	}
	return nil
}

// Refuse says who is not believed any more: they are no members, whatever they say.
func (g *Gossip) Refuse(refused func(role, id string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused = refused
	close(g.changed)
	g.changed = make(chan struct{})
}

// NotifyAlive implements memberlist.AliveDelegate: who is refused does not come in.
func (d delegate) NotifyAlive(node *memberlist.Node) error {
	member, err := parse(node.Meta)
	if err != nil {
		return nil //nolint:nilerr // what it says of itself is looked at when it joins
	}
	d.gossip.mu.Lock()
	defer d.gossip.mu.Unlock()
	if d.gossip.refused != nil && d.gossip.refused(member.Role, member.ID) {
		return fault.New(fault.Denied, "%s was revoked", name(member))
	}
	return nil
}
