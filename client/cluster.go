package client

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Member is one coordinator as the leader sees it.
type Member struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
	Leader  bool   `json:"leader"`
	Alive   bool   `json:"alive"`             // it answered the leader
	Version string `json:"version,omitempty"` // of its build, if that tells
	Format  int    `json:"format"`            // the newest that its build knows; 0 if it does not tell
	Applied uint64 `json:"applied"`           // newest log entry in its state
	Behind  uint64 `json:"behind"`            // log entries that it has yet to apply
	Problem string `json:"problem,omitempty"` // why it did not answer, or what is wrong with it
	// DiskFree is what the disk of its folder has free, in bytes; 0 if it does not tell.
	DiskFree int64 `json:"disk_free,omitempty"`
}

// Formats is which format may be in the log, and what waits for a newer one.
type Formats struct {
	InForce  int        `json:"in_force"`
	Newest   int        `json:"newest"` // that the leader's build knows
	HeldBack string     `json:"held_back,omitempty"`
	Waiting  []HeldBack `json:"waiting,omitempty"`
}

// HeldBack is what is refused until a format is in force.
type HeldBack struct {
	Format int    `json:"format"`
	What   string `json:"what"`
}

// Members tells of every coordinator, and which format they have agreed on.
func (c *Client) Members(ctx context.Context) ([]Member, Formats, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.MembersResponse, error) {
		return claryv1.NewClusterClient(conn).Members(ctx, &claryv1.MembersRequest{})
	})
	members := each(response.GetMembers(), func(m *claryv1.CoordinatorMember) Member {
		return Member{
			ID: m.GetId(), Address: m.GetAddress(), Voter: m.GetVoter(), Leader: m.GetLeader(), Alive: m.GetAlive(), Version: m.GetVersion(),
			Format: int(m.GetFormat()), Applied: m.GetApplied(), Behind: m.GetBehind(), Problem: m.GetProblem(), DiskFree: m.GetDiskFree(),
		}
	})
	return members, Formats{
		InForce: int(response.GetFormat()), Newest: int(response.GetNewest()), HeldBack: response.GetHeldBack(),
		Waiting: each(response.GetWaiting(), func(h *claryv1.HeldBack) HeldBack { return HeldBack{int(h.GetFormat()), h.GetWhat()} }),
	}, err
}

// RemoveCoordinator takes a coordinator out of the cluster for good. What that means beyond having one less must be
// forced, and is returned. A repeated request finds that it is gone.
func (c *Client) RemoveCoordinator(ctx context.Context, id string, force bool) ([]string, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, attempt int) (*claryv1.RemoveCoordinatorResponse, error) {
		answer, err := claryv1.NewClusterClient(conn).Remove(ctx, &claryv1.RemoveCoordinatorRequest{Id: id, Force: force})
		if attempt > 1 && fault.Is(wire.FromStatus(err), fault.NotFound) {
			return answer, nil // the answer of an earlier one was lost
		}
		return answer, err
	})
	return response.GetAccepted(), err
}

// Transfer hands leadership to a coordinator, or to whichever is furthest if to is "", and returns who leads now.
func (c *Client) Transfer(ctx context.Context, to string) (string, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.TransferResponse, error) {
		return claryv1.NewClusterClient(conn).Transfer(ctx, &claryv1.TransferRequest{To: to})
	})
	return response.GetLeader(), err
}

// TakeSnapshot copies all that the cluster has agreed on. It is asked of one coordinator: half a copy is worth nothing.
func (c *Client) TakeSnapshot(ctx context.Context, to io.Writer) error {
	stream, err := call(ctx, c, func(_ context.Context, conn *grpc.ClientConn, _ int) (grpc.ServerStreamingClient[claryv1.TakeSnapshotResponse], error) {
		return claryv1.NewClusterClient(conn).TakeSnapshot(ctx, &claryv1.TakeSnapshotRequest{})
	})
	if err != nil {
		return err
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wire.FromStatus(err)
		}
		if _, err := to.Write(part.GetData()); err != nil {
			return err
		}
	}
}

// Backup is one of the cluster's backups.
type Backup struct {
	URI  string    `json:"uri"`
	Size int64     `json:"size"` // bytes
	Made time.Time `json:"made"`
}

// Backups is which backups there are, and how they are made.
type Backups struct {
	To     string        // "": nowhere
	Every  time.Duration // 0: not by themselves
	Failed string        // why the last that was due was not made, or why they cannot be listed
	List   []Backup      // the newest first
}

func backupFrom(b *claryv1.BackupFile) Backup {
	return Backup{b.GetUri(), b.GetSize(), time.Unix(0, b.GetMade()).UTC()}
}

// Backup has the leader make a backup now. It returns the revision of the state that is in it, too.
func (c *Client) Backup(ctx context.Context) (Backup, uint64, error) {
	response, err := call(ctx, c, func(_ context.Context, conn *grpc.ClientConn, _ int) (*claryv1.BackupResponse, error) {
		return claryv1.NewClusterClient(conn).Backup(ctx, &claryv1.BackupRequest{}) // it takes what it takes
	})
	return backupFrom(response.GetBackup()), response.GetRevision(), err
}

// Backups tells which backups there are.
func (c *Client) Backups(ctx context.Context) (Backups, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListBackupsResponse, error) {
		return claryv1.NewClusterClient(conn).ListBackups(ctx, &claryv1.ListBackupsRequest{})
	})
	return Backups{
		To: response.GetTo(), Every: time.Duration(response.GetEvery()), Failed: response.GetFailed(), List: each(response.GetBackups(), backupFrom),
	}, err
}
