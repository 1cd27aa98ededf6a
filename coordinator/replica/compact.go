package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Raft takes snapshots by the number of entries. An entry holds up to a MiB of commands, so
// that a log of few entries may be gigabytes, all of which the next start applies again: the
// bytes count here too.
const (
	snapshotBytes = 64 << 20
	trailingBytes = 32 << 20 // of the log, kept behind a snapshot for followers that lag
	trailingLeast = 64       // entries
	compactPause  = 10 * time.Second
)

// compact has a snapshot taken whenever the log has grown by so many bytes since the last.
func (r *Replica) compact(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.machine.Applied():
		}
		since := r.machine.Since()
		if since.Bytes < r.snapshotBytes {
			continue
		}
		err := r.keep(uint64(min(max(since.Entries*trailingBytes/since.Bytes, trailingLeast), trailingEntries)))
		if err == nil {
			err = errors.Join(r.Compact(ctx), r.keep(trailingEntries))
		}
		if err == nil {
			continue
		}
		r.log.Warn("the log cannot be cut now, will try again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(compactPause):
		}
	}
}

// keep says how many entries raft leaves behind its next snapshot.
func (r *Replica) keep(entries uint64) error {
	config := r.raft.ReloadableConfig()
	config.TrailingLogs = entries
	return r.raft.ReloadConfig(config)
}

// Compact has raft take a snapshot now and cut its log, as it does by itself now and then.
func (r *Replica) Compact(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	return nil
}
