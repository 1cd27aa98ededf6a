package gossip

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"

	"github.com/hashicorp/memberlist"
)

// meta is what goes over the network about a member.
type meta struct {
	Member
	Started int64 `json:"t"` // nanoseconds since 1970
}

func parse(text []byte) (Member, error) {
	var m meta
	err := json.Unmarshal(text, &m)
	m.started = m.Started
	return m.Member, err
}

// delegate tells memberlist what this member says of itself.
type delegate struct{ gossip *Gossip }

func (d delegate) NodeMeta(limit int) []byte {
	self := d.gossip.config.Self
	text, err := json.Marshal(meta{self, self.started})
	if err != nil || len(text) > limit {
		d.gossip.config.Log.Error("self-description is too long for gossip", "bytes", len(text), "limit", limit)
		return nil
	}
	return text
}

func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

// events keeps the members as memberlist reports them.
type events struct{ gossip *Gossip }

func (e events) NotifyJoin(node *memberlist.Node)   { e.gossip.set(node, true) }
func (e events) NotifyUpdate(node *memberlist.Node) { e.gossip.set(node, true) }
func (e events) NotifyLeave(node *memberlist.Node)  { e.gossip.set(node, false) }

// levelled gives memberlist's lines, which begin with their level, that level. A wrong
// key shows as an error of the decryption: it is worth an operator's attention.
type levelled struct{ slog.Handler }

func (h levelled) Enabled(context.Context, slog.Level) bool { return true }

func (h levelled) Handle(ctx context.Context, record slog.Record) error {
	level := slog.LevelDebug
	text := record.Message
	switch {
	case strings.Contains(text, "decrypt") || strings.Contains(text, "No installed keys"):
		level, text = slog.LevelWarn, "a member with another gossip key is refused: "+text
	case strings.HasPrefix(text, "[ERR]"):
		level = slog.LevelInfo
	}
	if !h.Handler.Enabled(ctx, level) {
		return nil
	}
	_, trimmed, found := strings.Cut(text, "] ")
	if !found || level == slog.LevelWarn {
		trimmed = text
	}
	return h.Handler.Handle(ctx, slog.NewRecord(record.Time, level, trimmed, 0))
}
