package coordinator

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/clary-ml/clary/coordinator/backup"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
)

// snapshotReserve is how many bytes of the disk must stay free beside a snapshot that is being handed out.
const snapshotReserve = 256 << 20

// takeSnapshot writes a snapshot of all that was answered before it was asked for. It is made in a file without a name
// first: the state is held for as long as copying it takes, and not for as long as whoever asked takes to read.
func (n *coordinator) takeSnapshot(ctx context.Context, to io.Writer) error {
	part, _, err := n.snapshotFile(ctx)
	if err != nil {
		return err
	}
	defer part.Close()
	_, err = io.Copy(to, part)
	return err
}

// snapshotFile makes a snapshot in a file without a name.
func (n *coordinator) snapshotFile(ctx context.Context) (*os.File, backup.Header, error) {
	if err := n.roomForSnapshot(); err != nil {
		return nil, backup.Header{}, err
	}
	part, err := os.CreateTemp(n.config.Data, "snapshot-*")
	if err != nil {
		return nil, backup.Header{}, fault.New(fault.Internal, "make a snapshot: %w", err)
	}
	header, err := n.writeSnapshot(ctx, part)
	if removed := os.Remove(part.Name()); err == nil {
		err = removed
	}
	if err == nil {
		_, err = part.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = part.Close()
		return nil, header, err
	}
	return part, header, nil
}

func (n *coordinator) writeSnapshot(ctx context.Context, to io.Writer) (backup.Header, error) {
	snapshot, err := n.replica.Read(ctx, false)
	if err != nil {
		return backup.Header{}, err
	}
	defer snapshot.Close()
	header := backup.Header{
		Cluster: n.self.keyring.Get().Authority.Pin(), Life: n.life(), Keyring: snapshot.Trust().Keyring, Format: snapshot.Format(),
		Revision: snapshot.Revision(), Index: snapshot.Index(), Made: time.Now().UTC(), Version: n.config.Version,
	}
	return header, backup.WriteSnapshot(to, header, func(w io.Writer) error {
		_, err := snapshot.Backup(w)
		return err
	})
}

// roomForSnapshot refuses to fill the disk that the log is on.
func (n *coordinator) roomForSnapshot() error {
	free, _, err := ops.Room(n.config.Data)
	if err != nil {
		return err
	}
	size := int64(0)
	if info, err := os.Stat(n.config.path("raft", "state.db")); err == nil {
		size = info.Size()
	}
	if need := size + snapshotReserve; free < need {
		return fault.New(fault.Unready, "a snapshot needs up to %d MiB on the disk of %s for a moment, and %d MiB are free: make room, or ask another coordinator", need>>20, n.config.Data, free>>20)
	}
	return nil
}
