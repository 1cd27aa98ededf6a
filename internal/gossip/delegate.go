package gossip

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"

	"github.com/hashicorp/memberlist"
)

// delegate tells memberlist what this member says of itself.
type delegate struct{ gossip *Gossip }

func (d delegate) NodeMeta(limit int) []byte {
	meta, err := json.Marshal(d.gossip.config.Self)
	if err != nil || len(meta) > limit {
		d.gossip.config.Log.Error("self-description is too long for gossip", "bytes", len(meta), "limit", limit)
		return nil
	}
	return meta
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
